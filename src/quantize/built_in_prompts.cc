// What calibration draws when nobody names prompts. Subjects, places, light, styles, counts and places in the picture,
// lettering; from nothing at all to what fills CLIP's 75 tokens, since padding and length change the text stream.
#include "quantize/calibrate.h"

namespace octavo::quantize {

std::vector<PromptEntry> built_in_prompts() {
  constexpr const char* kPrompts[] = {
      "",
      "cat",
      "a red apple",
      "a photo of a brown dog on green grass",
      "two foxes in the snow",
      "an owl at night under the stars",
      "a small blue fish underwater",
      "three yellow lemons on a wooden table",
      "a big elephant in front of mountains",
      "a palm tree on a beach at sunset",
      "a white rabbit next to a carrot",
      "a cup of coffee on a table, soft morning light",
      "a studio photo of a wrist watch, soft shadow",
      "a painting of a sunflower in a vase",
      "a rocket above the clouds",
      "a green cactus in the desert, clear sky",
      "portrait of an old fisherman with a grey beard, window light, shallow depth of field",
      "a bowl of ramen with an egg and spring onions, seen from above",
      "a lighthouse on a cliff in a storm, long exposure",
      "macro photograph of a bee on a purple flower",
      "an astronaut riding a horse, digital art",
      "a city street at night, neon signs reflected in puddles",
      "watercolour of a village by a lake",
      "pencil drawing of a bicycle",
      "a cosy library with a fireplace and a sleeping cat",
      "a wooden sign that says \"open\"",
      "a chalkboard with the words \"good morning\" in round letters",
      "a poster for a jazz concert, bold shapes, three colours",
      "isometric render of a tiny kitchen",
      "a glass of water with ice on a black background",
      "a car",
      "a red car on the left and a blue car on the right",
      "a pizza in the middle of a table",
      "a panda eating bamboo in a forest",
      "four balloons of different colours in a blue sky",
      "a penguin on ice, high quality, sharp focus",
      "a pink pig below a tree",
      "a duck beside a frog near a pond",
      "a giant moon over a dark pine forest",
      "a cute dinosaur, cartoon style",
      "a horse galloping through shallow water, backlit",
      "a train crossing a stone bridge in autumn",
      "snow falling on a temple roof",
      "a crowd at a market, many colours, wide angle",
      "close-up of an eye",
      "hands holding a small plant",
      "a chess board during a game, black and white photograph",
      "abstract waves of orange and teal",
      "a map of an island, ink on old paper",
      "a stained glass window with a ship",
      "low poly mountains at dawn",
      "a robot watering flowers, pastel colours",
      "a strawberry cake with candles, birthday party in the background",
      "a guitar leaning against a white wall",
      "a foggy river with a lone rowing boat",
      "a dragon made of paper on a desk",
      "a futuristic train station full of light, glass and steel, people waiting, late afternoon",
      "a butterfly on top of a mushroom",
      "a monkey with a banana, plain background",
      "a turtle at the bottom of the sea among corals",
      "an umbrella in the rain",
      "a night sky full of stars above a desert with one tent lit from inside",
      "an oil painting in warm colours of a kitchen table with bread, cheese, a jug of milk, two pears, a folded cloth "
      "and a knife, light falling from a window on the left, dark background, fine brush strokes, quiet mood",
      "a wide landscape photograph of a valley in spring: a winding river in the foreground, a small farm with a red "
      "roof "
      "in the middle distance, fields of yellow flowers on both sides, a range of snowy mountains behind, and a few "
      "long "
      "clouds in a pale blue sky",
  };
  std::vector<PromptEntry> entries;
  for (const char* prompt : kPrompts) entries.push_back({.prompt = prompt, .negative_prompt = "", .facts = {}});
  return entries;
}

}  // namespace octavo::quantize
