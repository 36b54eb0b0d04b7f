"""Tests of the judge and the card's table; the standard library is enough.

    python3 -m unittest discover -s tools/tiny -p 'test_facts.py'
"""

import sys
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

import card  # noqa: E402
from catalogue import LABELS, OBJECTS, PLACE_NAMES, TINT_NAMES  # noqa: E402
from facts import COLUMNS, Reading, Seen, colour_of, holds, in_words, score  # noqa: E402

CAT, DOG, FOX = 0, 1, 2


def seen(index, x=0.5, y=0.5, size=0.5, tint=-1):
    return Seen(index, x, y, size, tint)


class Facts(unittest.TestCase):
    def test_an_object_is_there_or_not_and_counted_exactly(self):
        two = Reading([seen(CAT, 0.3), seen(CAT, 0.7), seen(DOG)], "plain white")
        self.assertTrue(holds(("object", CAT), two))
        self.assertFalse(holds(("object", FOX), two))
        self.assertTrue(holds(("count", CAT, 2), two))
        self.assertFalse(holds(("count", CAT, 1), two))
        self.assertFalse(holds(("count", CAT, 3), two))

    def test_a_background_is_its_colour_or_place_and_studio_is_another_fact(self):
        studio = Reading([], "studio red")
        self.assertTrue(holds(("background", "red"), studio))
        self.assertTrue(holds(("style", "studio"), studio))
        self.assertFalse(holds(("background", "pink"), studio))
        self.assertFalse(holds(("style", "studio"), Reading([], "plain red")))
        self.assertTrue(holds(("background", "snow"), Reading([], "snow")))

    def test_every_label_has_a_colour_or_place_that_captions_name(self):
        self.assertEqual(len(LABELS), len(set(LABELS)))
        self.assertEqual({colour_of(x) for x in LABELS[24:]}, set(PLACE_NAMES))
        self.assertEqual([colour_of(x) for x in LABELS[:12]], [colour_of(x) for x in LABELS[12:24]])

    def test_relations_need_both_things_and_a_clear_distance(self):
        picture = Reading([seen(CAT, 0.3, 0.3), seen(DOG, 0.7, 0.32)])
        self.assertTrue(holds(("relation", CAT, DOG, "left"), picture))
        self.assertTrue(holds(("relation", DOG, CAT, "right"), picture))
        self.assertFalse(holds(("relation", CAT, DOG, "right"), picture))
        self.assertFalse(holds(("relation", CAT, DOG, "above"), picture))  # by a hair
        self.assertFalse(holds(("relation", CAT, FOX, "left"), picture))
        self.assertTrue(holds(("relation", CAT, DOG, "below"), Reading([seen(CAT, 0.5, 0.7), seen(DOG, 0.5, 0.3)])))

    def test_corners_follow_the_shape_of_the_picture(self):
        wide = (1.5, 1.0)
        self.assertTrue(holds(("spot", CAT, "top left"), Reading([seen(CAT, 0.25, 0.27)])))
        self.assertFalse(holds(("spot", CAT, "top left"), Reading([seen(CAT, 0.25, 0.6)])))
        self.assertTrue(holds(("spot", CAT, "center"), Reading([seen(CAT, 0.75, 0.5)]), wide))
        self.assertFalse(holds(("spot", CAT, "center"), Reading([seen(CAT, 0.75, 0.5)])))
        self.assertTrue(holds(("spot", CAT, "right"), Reading([seen(CAT, 1.1, 0.5)]), wide))

    def test_paint_must_be_on_every_copy(self):
        red = TINT_NAMES.index("red")
        self.assertTrue(holds(("tint", CAT, red), Reading([seen(CAT, tint=red), seen(CAT, tint=red)])))
        self.assertFalse(holds(("tint", CAT, red), Reading([seen(CAT, tint=red), seen(CAT)])))
        self.assertFalse(holds(("tint", CAT, red), Reading([seen(DOG, tint=red)])))

    def test_size_is_absolute_alone_and_relative_in_a_pair(self):
        self.assertTrue(holds(("size", CAT, "small", None), Reading([seen(CAT, size=0.38)])))
        self.assertFalse(holds(("size", CAT, "small", None), Reading([seen(CAT, size=0.55)])))
        self.assertTrue(holds(("size", CAT, "big", None), Reading([seen(CAT, size=0.8)])))
        pair = Reading([seen(CAT, size=0.25), seen(DOG, size=0.45)])
        self.assertTrue(holds(("size", CAT, "small", DOG), pair))
        self.assertTrue(holds(("size", DOG, "big", CAT), pair))
        self.assertFalse(holds(("size", CAT, "big", DOG), pair))

    def test_an_unknown_fact_is_a_mistake(self):
        with self.assertRaises(ValueError):
            holds(("mood", CAT, "happy"), Reading([seen(CAT)]))


class Score(unittest.TestCase):
    def setUp(self):
        scene = SimpleNamespace(aspect=(1.0, 1.0), facts=[("object", CAT), ("count", CAT, 1), ("background", "red")])
        self.scenes = [scene, scene]

    def test_percentages_count_facts_and_whole_pictures(self):
        good = Reading([seen(CAT)], "plain red")
        bad = Reading([seen(CAT, 0.3), seen(CAT, 0.7), seen(DOG)], "plain red")
        row = score(self.scenes, [good, bad])
        self.assertEqual((row["object"], row["count"], row["background"], row["tint"]), (100.0, 50.0, 100.0, None))
        self.assertEqual((row["all_facts"], row["pictures_right"], row["pictures_with_extra"]), (83.33, 50.0, 50.0))
        self.assertEqual((row["facts"], row["pictures"]), (6, 2))

    def test_every_scene_needs_its_reading(self):
        with self.assertRaises(ValueError):
            score(self.scenes, [Reading()])

    def test_every_column_of_the_card_is_measured(self):
        row = score(self.scenes, [Reading(), Reading()])
        self.assertTrue(set(COLUMNS) <= {key for key, _ in card.COLUMNS})
        self.assertTrue({key for key, _ in card.COLUMNS} <= set(row))

    def test_facts_are_said_in_words(self):
        self.assertEqual(in_words(("count", CAT, 2)), f"count {OBJECTS[CAT].name} 2")
        self.assertEqual(in_words(("relation", CAT, DOG, "left")), "relation cat left dog")
        self.assertEqual(in_words(("tint", DOG, 0)), f"tint dog {TINT_NAMES[0]}")
        self.assertEqual(in_words(("size", CAT, "small", DOG)), "size cat small beside dog")
        self.assertEqual(in_words(("background", "snow")), "background snow")


class Card(unittest.TestCase):
    def result(self):
        scene = SimpleNamespace(aspect=(1.0, 1.0), facts=[("object", CAT)])
        row = score([scene], [Reading([seen(CAT)])])
        return {"engine": "octavo", "steps": 20, "drawn": {"4": row}, "parts": {}, "ceiling": {"true renders": row},
                "vae": {256: {"mean": 33.5, "p10": 30.0, "pictures": 512}},
                "effects": {"pictures": 24, "background_kept": 4, "other_seed": 21.0, "same_seed": 0.0}}

    def test_the_table_replaces_what_was_between_the_marks_and_nothing_else(self):
        text = card.fill(f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n", self.result())
        self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
        self.assertNotIn("old", text)
        self.assertIn("| guidance 4 | 100.0 | – |", text)
        self.assertIn("33.5 dB", text)
        self.assertEqual(card.fill(text, self.result()), text)

    def test_a_card_without_marks_is_refused(self):
        with self.assertRaises(SystemExit):
            card.fill("no marks here", self.result())


if __name__ == "__main__":
    unittest.main()
