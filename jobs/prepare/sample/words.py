"""Words of our own that the sample's rows are made of."""

FIRST_NAMES = (
    "Ada Bruno Clara Dario Elin Felix Greta Hugo Ines Jonas Kira Leon Mara Nils Olga Paul "
    "Rosa Simon Tara Viktor Wanda Yara Anton Bella Carl Dora Emil Frida Gustav Hanna"
).split()
LAST_NAMES = (
    "Abel Brook Cole Dane Ekman Frost Grant Holt Irving Jansen Keller Lang Moss North Olsen "
    "Penn Quist Reed Stone Thorn Unger Vale West York Zeller"
).split()
PLACES = (
    "Alder Briar Cedar Dover Elm Falcon Grove Heron Iron Juniper Kestrel Lake Maple Nettle Oak "
    "Pine Quarry River Sparrow Thistle Upland Violet Willow Yarrow"
).split()
PLACE_ENDINGS = "field ford ton wick mouth dale".split()
TOWNS = (
    "Arden Belmont Corby Dunmore Eastlake Fairview Glenwood Hartley Kingston Linden Marlow Newport".split()
)
TITLE_FIRST = (
    "Silent Golden Broken Hidden Distant Winter Burning Empty Crimson Gentle Lost Early Hollow "
    "Bright Frozen Quiet Second Wild"
).split()
TITLE_SECOND = (
    "River Garden Mirror Harbor Letter Season Tower Bridge Promise Island Forest Shadow Journey "
    "Lantern Window Orchard Signal Voyage"
).split()
BRANDS = (
    "Astra Borealis Condor Delta Everest Fjord Galaxy Horizon Icarus Jupiter Kodiak Lumen Nimbus "
    "Orion Pulsar Quartz Ranger Sirius Titan Umbra Vertex Zephyr"
).split()
THINGS = (
    "Amber Biscuit Comet Daisy Ember Feather Ginger Hazel Indigo Jasper Kiwi Lotus Mango Nutmeg "
    "Olive Pepper Quill Ruby Saffron Topaz Velvet Waffle Ziggy Clover Poppy Rusty"
).split()
