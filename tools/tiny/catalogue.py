"""What octavo-tiny can draw: its objects, colours, places, and the words for them.

One row per object: the glyph, its name, further names people use for it, and the colour it has by nature (None when
it has several). Everything else in this folder reads these tables; nothing else names an object.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Object:
    """A thing with a name and a glyph."""

    glyph: str
    name: str
    synonyms: tuple = ()
    colour: str | None = None
    plurals: tuple = ()  # of name and synonyms, where adding an s is wrong

    def names(self):
        return (self.name,) + self.synonyms

    def plural(self, index):
        """The plural of names()[index]."""
        word = self.names()[index]
        for singular, plural in (p.split("/") for p in self.plurals):
            if singular == word:
                return plural
        if word.endswith(("s", "x", "ch", "sh")):
            return word + "es"
        if word.endswith("y") and word[-2] not in "aeiou":
            return word[:-1] + "ies"
        return word + "s"


def _o(glyph, names, colour=None, *plurals):
    first, *rest = [n.strip() for n in names.split(",")]
    return Object(glyph, first, tuple(rest), colour, plurals)


OBJECTS = [
    # animals
    _o("🐱", "cat,kitten,kitty"),
    _o("🐶", "dog,puppy"),
    _o("🦊", "fox", "orange"),
    _o("🐻", "bear", "brown"),
    _o("🐼", "panda"),
    _o("🐨", "koala", "grey"),
    _o("🦁", "lion"),
    _o("🐯", "tiger", "orange"),
    _o("🐮", "cow"),
    _o("🐷", "pig,piglet", "pink"),
    _o("🐸", "frog", "green"),
    _o("🐵", "monkey", "brown"),
    _o("🐰", "rabbit,bunny", "white"),
    _o("🐔", "chicken,hen", "white"),
    _o("🐧", "penguin"),
    _o("🦉", "owl", "brown"),
    _o("🦆", "duck"),
    _o("🦄", "unicorn", "white"),
    _o("🐴", "horse", "brown"),
    _o("🐘", "elephant", "grey"),
    _o("🐢", "turtle,tortoise", "green"),
    _o("🐙", "octopus", "pink"),
    _o("🐳", "whale", "blue"),
    _o("🐠", "fish", "yellow", "fish/fish"),
    _o("🦀", "crab", "red"),
    _o("🦋", "butterfly", "orange"),
    _o("🐝", "bee", "yellow"),
    _o("🐞", "ladybug,ladybird", "red"),
    _o("🐌", "snail"),
    _o("🦕", "dinosaur", "green"),
    # plants
    _o("🌳", "tree", "green"),
    _o("🌲", "pine tree,fir tree", "green"),
    _o("🌴", "palm tree,palm", "green"),
    _o("🌵", "cactus", "green", "cactus/cacti"),
    _o("🌹", "rose", "red"),
    _o("🌷", "tulip", "pink"),
    _o("🌻", "sunflower", "yellow"),
    _o("🌸", "flower,blossom", "pink"),
    _o("🍄", "mushroom,toadstool", "red"),
    _o("🎄", "christmas tree", "green"),
    # food
    _o("🍎", "apple", "red"),
    _o("🍌", "banana", "yellow"),
    _o("🍊", "orange", "orange"),
    _o("🍋", "lemon", "yellow"),
    _o("🍓", "strawberry", "red"),
    _o("🍉", "watermelon", "red"),
    _o("🍇", "bunch of grapes", "purple", "bunch of grapes/bunches of grapes"),
    _o("🍒", "pair of cherries", "red", "pair of cherries/pairs of cherries"),
    _o("🍍", "pineapple", "yellow"),
    _o("🥑", "avocado", "green"),
    _o("🥕", "carrot", "orange"),
    _o("🌽", "corn,ear of corn", "yellow", "corn/corn", "ear of corn/ears of corn"),
    _o("🍕", "pizza,slice of pizza", None, "slice of pizza/slices of pizza"),
    _o("🍔", "hamburger,burger"),
    _o("🍩", "donut,doughnut"),
    _o("🍪", "cookie,biscuit", "brown"),
    _o("🎂", "cake,birthday cake"),
    _o("🧁", "cupcake,muffin"),
    _o("🍦", "ice cream,ice cream cone"),
    _o("🍞", "bread,loaf of bread", "brown", "bread/breads", "loaf of bread/loaves of bread"),
    _o("🧀", "cheese,piece of cheese", "yellow", "piece of cheese/pieces of cheese"),
    _o("🍟", "french fries,fries", None, "french fries/french fries", "fries/fries"),
    _o("☕", "cup of coffee,coffee,cup of tea", None, "cup of coffee/cups of coffee", "cup of tea/cups of tea"),
    _o("🍭", "lollipop"),
    # going places
    _o("🚗", "car,automobile", "red"),
    _o("🚕", "taxi,cab", "yellow"),
    _o("🚌", "bus"),
    _o("🚒", "fire truck,fire engine", "red"),
    _o("🚜", "tractor", "green"),
    _o("🚂", "train,steam train,locomotive"),
    _o("🚲", "bicycle,bike"),
    _o("✈️", "airplane,plane,aeroplane"),
    _o("🚁", "helicopter", "yellow"),
    _o("🚀", "rocket,spaceship"),
    _o("🛸", "ufo,flying saucer"),
    _o("⛵", "sailboat,boat,sailing boat"),
    # places to be
    _o("🏠", "house,home"),
    _o("🏰", "castle"),
    _o("⛺", "tent", "orange"),
    # things
    _o("🎈", "balloon", "red"),
    _o("🎁", "gift,present"),
    _o("🧸", "teddy bear,teddy", "brown"),
    _o("⚽", "soccer ball,football"),
    _o("🏀", "basketball", "orange"),
    _o("🎸", "guitar,electric guitar", "red"),
    _o("🎺", "trumpet", "yellow"),
    _o("🥁", "drum", "red"),
    _o("⏰", "alarm clock,clock", "red"),
    _o("📷", "camera"),
    _o("📺", "television,tv"),
    _o("💻", "laptop,computer"),
    _o("💡", "light bulb,lightbulb,lamp", "yellow"),
    _o("🔑", "key", "yellow"),
    _o("🔔", "bell", "yellow"),
    _o("🏆", "trophy", "yellow"),
    _o("👑", "crown", "yellow"),
    _o("💎", "diamond,gem", "blue"),
    _o("🎩", "top hat,hat", "black"),
    _o("👟", "sneaker,running shoe,shoe", "blue"),
    _o("👕", "t-shirt,shirt", "blue"),
    _o("🎒", "backpack,school bag", "red"),
    _o("☂️", "umbrella", "purple"),
    _o("📕", "book", "red"),
    _o("✂️", "scissors,pair of scissors", None, "scissors/scissors", "pair of scissors/pairs of scissors"),
    _o("🔨", "hammer"),
    _o("❤️", "heart", "red"),
    _o("⭐", "star", "yellow"),
    _o("☀️", "sun", "yellow"),
    _o("⛄", "snowman", "white", "snowman/snowmen"),
    _o("👻", "ghost", "white"),
    _o("🤖", "robot"),
    _o("👽", "alien", "grey"),
    _o("🎃", "pumpkin,halloween pumpkin,jack-o-lantern", "orange"),
]

# Names that need no article and are one thing.
MASS = {"bread", "cheese", "corn", "coffee", "pizza", "french fries", "fries", "scissors", "ice cream"}
# Names that never take one.
NO_ARTICLE = {"french fries", "fries", "scissors", "bread", "cheese", "corn", "coffee"}

# Colours of backgrounds, as sRGB of the backdrop.
BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (14, 14, 17),
    "grey": (140, 142, 146),
    "red": (206, 32, 40),
    "orange": (246, 136, 22),
    "yellow": (250, 214, 42),
    "green": (46, 158, 62),
    "blue": (38, 88, 208),
    "purple": (122, 48, 172),
    "pink": (248, 150, 190),
    "brown": (118, 74, 42),
    "turquoise": (36, 182, 180),
}
BACKGROUND_WORDS = {
    "grey": ("grey", "gray"), "purple": ("purple", "purple", "violet"), "turquoise": ("turquoise", "teal", "cyan"),
}

# Colours an object may be painted in: shadow, middle and light of the ramp its brightness is mapped to.
TINTS = {
    "red": ((84, 4, 8), (220, 30, 36), (255, 190, 186)),
    "orange": ((110, 44, 0), (245, 128, 14), (255, 222, 176)),
    "yellow": ((120, 88, 0), (248, 206, 24), (255, 246, 190)),
    "green": ((4, 58, 16), (44, 164, 58), (200, 244, 196)),
    "blue": ((6, 20, 96), (36, 92, 224), (190, 216, 255)),
    "purple": ((46, 4, 84), (132, 46, 190), (230, 202, 252)),
    "pink": ((130, 20, 80), (248, 128, 180), (255, 226, 240)),
    "black": ((4, 4, 6), (36, 36, 42), (120, 120, 130)),
    "white": ((128, 132, 142), (226, 228, 234), (255, 255, 255)),
}

# Places, each with the ways people say them. {} is nothing to fill in: the phrase stands as it is.
PLACES = {
    "grass": ("on the grass", "on grass", "in a meadow", "in a field", "on a lawn", "in the garden", "in the park",
              "on green grass", "in a grassy field", "outdoors"),
    "snow": ("in the snow", "on snow", "in a snowy landscape", "in winter", "on the snow", "in a snowy field"),
    "night": ("at night", "under the stars", "under a starry sky", "in the night", "at night under the stars",
              "in the dark", "under the night sky", "at midnight"),
    "sunset": ("at sunset", "in front of a sunset", "at dusk", "in the evening", "at sunrise",
               "with a sunset behind"),
    "desert": ("in the desert", "on sand dunes", "in a desert", "in a sandy desert", "on a sand dune"),
    "underwater": ("underwater", "under the sea", "under water", "in the sea", "in the ocean",
                   "at the bottom of the sea"),
    "beach": ("on the beach", "at the beach", "by the sea", "on a beach", "on a sandy beach", "at the seaside"),
    "forest": ("in the forest", "in a forest", "in the woods", "in the jungle", "among the trees"),
    "mountains": ("in the mountains", "in front of mountains", "on a mountain", "in front of a mountain",
                  "with mountains in the background"),
    "table": ("on a wooden table", "on a table", "on the table", "on a wooden desk", "on a wooden surface",
              "on a desk"),
}

COUNTS = {2: ("two", "two", "two", "2", "a couple of"), 3: ("three", "three", "3"), 4: ("four", "four", "4")}

INDEX = {o.name: i for i, o in enumerate(OBJECTS)}
TINT_NAMES = list(TINTS)
BACKGROUND_NAMES = list(BACKGROUNDS)
PLACE_NAMES = list(PLACES)
# Labels of backgrounds: plain colours, then studio backdrops, then places.
LABELS = [f"plain {b}" for b in BACKGROUND_NAMES] + [f"studio {b}" for b in BACKGROUND_NAMES] + PLACE_NAMES
