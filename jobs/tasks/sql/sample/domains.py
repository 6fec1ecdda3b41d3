"""Schemas of the sample's databases.

A block is one database; its first line is the name. A table line is `plural/singular: column:kind, …`; the
first column is the display name of a row. The second table of a block references the first by `<singular>_id`.

Kinds: person, place, title, brand, thing, code (unique texts); town (one of six); `a|b|c` (one of these words);
`1-9` (integers); `1.0-9.0` (multiples of 0.5).
"""

DOMAINS = """
bookshop
books/book: title:title, author:person, genre:mystery|romance|science|poetry, pages:80-640, price:4.5-39.5
library_desk
members/member: name:person, town:town, age:12-80
loans/loan: code:code, branch:north|south|central, days:1-40
football_club
players/player: name:person, position:goalkeeper|defender|striker, age:17-38, goals:0-41, salary:900-9800
city_marathon
runners/runner: name:person, country:Norland|Ostia|Veldt|Kemar, age:18-70
results/result: code:code, distance:5|10|21, minutes:18-190
coffee_house
drinks/drink: name:thing, size:small|medium|large, price:1.5-7.5, calories:2-480
bakery
breads/bread: name:thing, flour:wheat|rye|spelt|corn, weight:200-1500, price:1.5-9.0
orders/order_line: code:code, weekday:monday|friday|sunday, amount:1-30
farm
animals/animal: name:thing, species:cow|goat|sheep|horse, weight:30-900, age:1-19
orchard
trees/tree: label:code, fruit:apple|pear|plum|cherry, height:2-14, harvest:5-260
vineyard
wines/wine: name:title, grape:riesling|merlot|pinot|malbec, year:1990-2022, bottles:100-9000, rating:60-99
fishing_port
boats/boat: name:thing, harbour:town, length:6-45, crew:1-22
catches/catch_report: code:code, fish:cod|tuna|herring|salmon, weight:20-4000
airline
airports/airport: name:place, country:Norland|Ostia|Veldt|Kemar, runways:1-6
flights/flight: code:code, airline:Skylark|Meridian|Bluejet, passengers:40-380
train_line
stations/station: name:place, region:north|south|east|west, platforms:1-16, opened:1850-1999
bus_depot
buses/bus: plate:code, fuel:diesel|electric|hybrid, seats:12-80, mileage:1000-90000
taxi_company
drivers/driver: name:person, shift:day|night|weekend, experience:1-35
rides/ride: code:code, district:harbour|market|station, fare:3.5-60.0
car_dealer
cars/car: model:brand, color:red|blue|black|silver, year:2001-2024, horsepower:60-420, price:2000-60000
bicycle_rental
bikes/bike: model:brand, type:city|mountain|road, gears:1-27
rentals/rental: code:code, season:spring|summer|autumn, hours:1-48
hospital
doctors/doctor: name:person, specialty:surgery|cardiology|neurology|pediatrics, age:28-67
visits/visit: code:code, outcome:healed|referred|admitted, cost:20-900
pharmacy
medicines/medicine: name:brand, form:tablet|syrup|cream|drops, stock:0-500, price:2.5-49.5
dental_clinic
patients/patient: name:person, insurance:public|private|student, age:4-88, visits:1-24
animal_shelter
dogs/dog: name:thing, breed:beagle|collie|poodle|terrier, age:1-15, weight:3-48
zoo
enclosures/enclosure: name:thing, climate:tropical|arctic|desert, area:50-5000
keepers/keeper: name:person, contract:full|part|seasonal, salary:1500-4200
aquarium
tanks/tank: label:code, water:salt|fresh|brackish, volume:100-90000, temperature:4-30
museum
paintings/painting: title:title, artist:person, style:cubist|realist|baroque, year:1600-1980, value:500-95000
art_gallery
artists/artist: name:person, country:Norland|Ostia|Veldt|Kemar, born:1900-1999
sculptures/sculpture: title:title, material:bronze|marble|wood, height:20-400
cinema
films/film: title:title, genre:comedy|drama|horror|western, length:70-200, year:1955-2024, tickets:100-9900
theatre
plays/play: title:title, language:english|french|german, acts:1-5
actors/actor: name:person, role:lead|support|extra, fee:200-8000
record_shop
albums/album: title:title, label:Moonrise|Anchor|Redwood, tracks:4-24, year:1962-2023, sales:100-99000
music_school
teachers/teacher: name:person, instrument:piano|violin|flute|drums, age:23-70
pupils/pupil: name:person, level:beginner|middle|advanced, lessons:1-60
concert_hall
concerts/concert: title:title, hall:main|garden|studio, visitors:30-2500, price:5.0-95.0
television
channels/channel: name:brand, owner:public|private|cable, launched:1955-2015
shows/show: title:title, format:quiz|news|series, episodes:3-400
game_studio
games/game: title:title, platform:console|mobile|desktop, score:20-99, downloads:100-99000
chess_league
clubs/club: name:place, division:first|second|third, founded:1880-2010
masters/master: name:person, style:attacking|solid|tricky, rating:1800-2800
tennis_tour
tournaments/tournament: name:place, surface:clay|grass|hard, prize:1000-99000, players:16-128
swimming_pool
swimmers/swimmer: name:person, stroke:butterfly|freestyle|backstroke, age:9-40, medals:0-30
mountain_guide
mountains/mountain: name:place, country:Norland|Ostia|Veldt|Kemar, height:900-8200
climbs/climb: code:code, season:spring|summer|winter, hours:2-60
ski_resort
slopes/slope: name:place, difficulty:easy|medium|hard, length:300-7000, lifts:1-9
national_park
parks/park: name:place, region:north|south|east|west, area:100-9000
trails/trail: name:title, surface:gravel|rock|forest, distance:2-40
weather_service
cities/city: name:place, climate:mild|humid|dry|cold, population:5000-900000, rainfall:100-2400
river_survey
rivers/river: name:place, basin:amber|cobalt|jade, length:20-3000, depth:1-60
university
departments/department: name:title, building:east|west|tower, budget:10000-900000
professors/professor: name:person, rank:assistant|associate|full, age:30-70
school
students/student: name:person, grade:first|second|third|fourth, age:10-19, points:1-100
language_course
courses/course: name:title, language:spanish|arabic|korean|latin, weeks:2-40, price:50-900
exam_office
exams/exam: subject:title, month:june|july|december, questions:10-90
attempts/attempt: code:code, verdict:passed|failed|absent, points:1-99
supermarket
products/product: name:thing, category:dairy|snack|frozen|fruit, price:0.5-19.5, stock:0-400
toy_shop
toys/toy: name:thing, material:wood|plastic|cloth, price:2.5-80.0
sales/sale: code:code, payment:cash|card|voucher, quantity:1-12
shoe_store
shoes/shoe: model:brand, kind:boot|sandal|sneaker, size:35-47, price:15-240
furniture_shop
chairs/chair: name:brand, wood:oak|pine|beech|walnut, weight:2-25, price:20-600
clothing_line
designers/designer: name:person, studio:town, awards:0-14
dresses/dress: name:thing, fabric:silk|cotton|linen, price:30-900
jeweller
rings/ring: name:thing, metal:gold|silver|platinum, carats:8-24, price:90-9900
bank
customers/customer: name:person, town:town, age:18-90
accounts/account: code:code, kind:savings|checking|business, balance:10-90000
insurance_office
policies/policy: code:code, type:home|car|travel|health, premium:40-2000, claims:0-12
law_firm
lawyers/lawyer: name:person, field:tax|family|criminal, salary:2500-12000
cases/case_file: title:title, status:open|closed|appealed, hours:2-300
real_estate
houses/house: street:place, type:villa|cottage|flat, rooms:1-12, price:40000-900000
hotel
rooms/room: label:code, side:sea|garden|street, beds:1-4
bookings/booking: guest:person, channel:phone|web|agency, nights:1-21
restaurant
dishes/dish: name:thing, course:starter|main|dessert, price:3.5-42.0, calories:90-1400
pizza_delivery
pizzas/pizza: name:thing, crust:thin|thick|stuffed, price:6.5-19.5
deliveries/delivery: street:place, vehicle:scooter|car|bike, minutes:8-75
software_team
developers/developer: name:person, language:python|rust|java|go, age:20-62
tickets/ticket: title:title, priority:low|medium|high, hours:1-90
phone_shop
phones/phone: model:brand, color:white|black|green, storage:32-1024, price:90-1500
data_center
servers/server: label:code, system:linux|bsd|solaris, memory:4-512, cores:2-64
power_grid
plants/plant: name:place, source:wind|solar|coal|hydro, capacity:10-3000, workers:3-900
factory
machines/machine: label:code, hall:alpha|beta|gamma, power:1-90
repairs/repair: code:code, cause:wear|heat|error, cost:30-5000
space_agency
rockets/rocket: name:brand, fuel:liquid|solid|hybrid, height:18-110
launches/launch: code:code, outcome:success|failure|delay, payload:50-20000
observatory
stars/star: name:thing, color:blue|yellow|orange, distance:4-9000, mass:1-60
postal_service
parcels/parcel: code:code, priority:normal|express|economy, weight:1-30, distance:5-2400
fire_brigade
engines/engine: plate:code, crew:blue|green|amber, hoses:1-9, year:1985-2023
newspaper
editors/editor: name:person, desk:sports|politics|culture, age:24-66
articles/article: title:title, edition:morning|evening|weekend, words:120-4000
festival
bands/band: name:brand, genre:jazz|rock|folk|metal, members:2-12, fee:300-25000
charity
donors/donor: name:person, town:town, age:20-90
gifts/gift: code:code, purpose:food|shelter|school, amount:5-5000
election_office
candidates/candidate: name:person, party:green|liberal|labour|centre, age:25-80, votes:50-99000
embassy
diplomats/diplomat: name:person, rank:attache|consul|ambassador, languages:1-7, age:26-68
beehives
hives/hive: label:code, meadow:clover|heather|linden, honey:2-60, bees:5000-80000
greenhouse
flowers/flower: name:thing, color:red|white|purple, height:5-180, price:0.5-24.5
"""
