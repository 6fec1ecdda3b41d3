"""Words from which the sample's values are composed."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words(
    "Ada Bruno Clara Dario Elin Felix Greta Hugo Ines Jonas Kira Leon Mara Nils Olga Paul "
    "Rosa Simon Tara Viktor Wanda Yara Anton Bella Carl Dora Emil Frida Gustav Hanna"
)
LAST_NAMES = _words(
    "Abel Brook Cole Dane Ekman Frost Grant Holt Irving Jansen Keller Lang Moss North Olsen "
    "Penn Quist Reed Stone Thorn Unger Vale West York Zeller"
)
PLACES = _words(
    "Alder Briar Cedar Dover Elm Falcon Grove Heron Iron Juniper Kestrel Lake Maple Nettle Oak "
    "Pine Quarry River Sparrow Thistle Upland Violet Willow Yarrow"
)
PLACE_ENDINGS = _words("field ford ton wick mouth dale")
TOWNS = _words(
    "Arden Belmont Corby Dunmore Eastlake Fairview Glenwood Hartley Kingston Linden Marlow Newport"
)
TITLE_FIRST = _words(
    "Silent Golden Broken Hidden Distant Winter Burning Empty Crimson Gentle Lost Early Hollow "
    "Bright Frozen Quiet Second Wild"
)
TITLE_SECOND = _words(
    "River Garden Mirror Harbor Letter Season Tower Bridge Promise Island Forest Shadow Journey "
    "Lantern Window Orchard Signal Voyage"
)
BRANDS = _words(
    "Astra Borealis Condor Delta Everest Fjord Galaxy Horizon Icarus Jupiter Kodiak Lumen Nimbus "
    "Orion Pulsar Quartz Ranger Sirius Titan Umbra Vertex Zephyr"
)
THINGS = _words(
    "Amber Biscuit Comet Daisy Ember Feather Ginger Hazel Indigo Jasper Kiwi Lotus Mango Nutmeg "
    "Olive Pepper Quill Ruby Saffron Topaz Velvet Waffle Ziggy Clover Poppy Rusty"
)
