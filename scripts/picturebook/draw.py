"""Draws the pictures of picturebook: one creature a page, with a caption that says what is on it.

  python3 draw.py SHEET.png             a sheet of pages to look at
  python3 draw.py --lorikeet FOLDER     the pages about a lorikeet, which the base model never saw
"""
import json
import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE, SCALE = 64, 4
S = SIZE * SCALE

COLORS = {"red": (214, 56, 52), "orange": (240, 142, 46), "yellow": (246, 208, 66), "green": (84, 168, 82), "blue": (62, 110, 200), "purple": (136, 86, 178),
    "pink": (240, 150, 180), "brown": (142, 98, 66), "gray": (140, 146, 152), "black": (52, 52, 58), "white": (246, 244, 238)}
INK, WHITE, BEAK = (40, 36, 44), (252, 252, 250), (250, 176, 40)
EXTRAS = ["a hat", "a scarf", "a balloon", "a flower"]


def shade(color, factor):
    """Darker below 1, lighter above."""
    if factor <= 1:
        return tuple(int(c * factor) for c in color)
    return tuple(int(c + (255 - c) * (factor - 1)) for c in color)


class Pen:
    """Draws in a creature's own units: the origin is its middle, 1 is about half of its height; it may be mirrored and tilted."""

    def __init__(self, draw, x, y, unit, flip, tilt):
        self.draw, self.x, self.y, self.unit, self.flip = draw, x, y, unit, -1 if flip else 1
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)

    def at(self, x, y):
        x *= self.flip
        return self.x + self.unit * (x * self.cos - y * self.sin), self.y + self.unit * (x * self.sin + y * self.cos)

    def shape(self, points, color):
        self.draw.polygon([self.at(*p) for p in points], fill=color)

    def oval(self, x, y, rx, ry, color, turn=0.0, part=(0, 360)):
        c, s = math.cos(turn), math.sin(turn)
        angles = [math.radians(part[0] + (part[1] - part[0]) * i / 40) for i in range(41)]
        self.shape([(x + rx * math.cos(a) * c - ry * math.sin(a) * s, y + rx * math.cos(a) * s + ry * math.sin(a) * c) for a in angles], color)

    def line(self, points, color, width):
        path = [self.at(*p) for p in points]
        w = max(1, int(width * self.unit))
        self.draw.line(path, fill=color, width=w, joint="curve")
        for x, y in path:
            self.draw.ellipse([x - w / 2, y - w / 2, x + w / 2, y + w / 2], fill=color)

    def eye(self, x, y, r=0.1):
        self.oval(x, y, r, r * 1.1, WHITE)
        self.oval(x + r * 0.25, y, r * 0.6, r * 0.7, INK)


# Every creature looks to the right and gives where its head's top and its neck are, for hats and scarves.
def fish(p, c, _):
    p.shape([(-0.55, 0), (-1.15, -0.5), (-1.0, 0), (-1.15, 0.5)], shade(c, 0.8))
    p.shape([(-0.2, -0.45), (0.15, -0.85), (0.35, -0.4)], shade(c, 0.8))
    p.oval(0.1, 0, 0.8, 0.52, c)
    p.oval(0.05, 0.12, 0.22, 0.14, shade(c, 0.8), 0.4)
    p.eye(0.52, -0.12, 0.12)
    p.line([(0.72, 0.18), (0.86, 0.14)], INK, 0.05)
    return (0.35, -0.48), (0.25, 0.48)


def bird(p, c, _, belly=None, head=None, wing=None, beak=BEAK):
    p.line([(-0.1, 0.6), (-0.1, 0.95)], BEAK, 0.06)
    p.line([(0.15, 0.6), (0.15, 0.95)], BEAK, 0.06)
    p.shape([(-0.5, 0.1), (-1.1, 0.45), (-0.95, 0.1), (-0.5, -0.1)], shade(wing or c, 0.75))
    p.oval(0, 0.2, 0.62, 0.5, c, 0.15)
    p.oval(0.2, 0.32, 0.36, 0.34, belly or shade(c, 1.45), 0.15)
    p.shape([(0.75, -0.5), (1.1, -0.36), (0.75, -0.24)], beak)
    p.oval(0.45, -0.38, 0.38, 0.38, head or c)
    p.oval(-0.15, 0.12, 0.4, 0.26, wing or shade(c, 0.75), 0.5)
    p.eye(0.56, -0.44, 0.1)
    return (0.45, -0.76), (0.32, 0.0)


def cat(p, c, _):
    p.line([(-0.55, 0.6), (-1.0, 0.4), (-0.95, -0.1)], shade(c, 0.85), 0.14)
    p.oval(-0.05, 0.5, 0.6, 0.44, c)
    p.oval(0.1, 0.62, 0.3, 0.28, shade(c, 1.4))
    for x in (-0.3, 0.3):
        p.oval(x, 0.88, 0.16, 0.1, shade(c, 0.85))
    for x in (-0.28, 0.52):
        p.shape([(x - 0.17, -0.4), (x, -0.92), (x + 0.2, -0.4)], c)
    p.oval(0.12, -0.25, 0.5, 0.42, c)
    p.eye(-0.04, -0.3, 0.1)
    p.eye(0.3, -0.3, 0.1)
    p.shape([(0.07, -0.13), (0.21, -0.13), (0.14, -0.04)], (240, 130, 140))
    for y in (-0.1, 0.0):
        p.line([(0.3, y), (0.66, y - 0.04)], INK, 0.025)
        p.line([(-0.04, y), (-0.4, y - 0.04)], INK, 0.025)
    return (0.12, -0.66), (0.08, 0.16)


def rabbit(p, c, _):
    for x, turn in ((-0.1, -0.18), (0.3, 0.15)):
        p.oval(x, -0.85, 0.13, 0.42, c, turn)
        p.oval(x, -0.83, 0.06, 0.3, (244, 170, 180), turn)
    p.oval(-0.6, 0.62, 0.18, 0.18, shade(c, 1.5))
    p.oval(-0.05, 0.5, 0.55, 0.45, c)
    p.oval(0.1, 0.6, 0.28, 0.3, shade(c, 1.4))
    p.oval(0.1, -0.2, 0.42, 0.4, c)
    p.eye(-0.04, -0.26, 0.1)
    p.eye(0.28, -0.26, 0.1)
    p.oval(0.12, -0.06, 0.07, 0.05, (240, 130, 140))
    p.shape([(0.06, 0.02), (0.18, 0.02), (0.17, 0.14), (0.07, 0.14)], WHITE)
    return (0.1, -0.58), (0.06, 0.18)


def frog(p, c, _):
    for x in (-0.6, 0.6):
        p.oval(x, 0.62, 0.34, 0.2, shade(c, 0.8), 0.3 if x < 0 else -0.3)
    p.oval(0, 0.35, 0.68, 0.5, c)
    p.oval(0, 0.5, 0.42, 0.32, shade(c, 1.5))
    for x in (-0.34, 0.34):
        p.oval(x, -0.32, 0.22, 0.22, c)
        p.eye(x, -0.34, 0.14)
    p.oval(0, -0.05, 0.6, 0.32, c)
    p.line([(-0.3, 0.05), (0, 0.13), (0.3, 0.05)], INK, 0.045)
    for x in (-0.3, 0.3):
        p.oval(x, 0.84, 0.2, 0.09, shade(c, 0.8))
    return (0, -0.36), (0, 0.26)


def snail(p, c, r):
    skin = (222, 186, 140)
    p.oval(0, 0.62, 0.95, 0.2, skin)
    p.oval(0.72, 0.3, 0.2, 0.42, skin, -0.1)
    for x in (0.68, 0.9):
        p.line([(x - 0.03, 0.0), (x + 0.05, -0.35)], skin, 0.06)
        p.oval(x + 0.05, -0.38, 0.08, 0.08, INK)
    p.oval(-0.12, 0.1, 0.6, 0.56, c)
    spiral = [(-0.12 + 0.46 * (1 - i / 34) * math.cos(i / 4), 0.1 + 0.43 * (1 - i / 34) * math.sin(i / 4)) for i in range(32)]
    p.line(spiral, shade(c, 0.65), 0.08)
    p.line([(0.72, 0.4), (0.86, 0.36)], INK, 0.04)
    return (-0.12, -0.46), (0.7, 0.4)


def butterfly(p, c, _):
    for x in (-1, 1):
        p.oval(x * 0.5, -0.3, 0.48, 0.44, c, x * -0.5)
        p.oval(x * 0.42, 0.42, 0.36, 0.36, shade(c, 0.78), x * 0.4)
        p.oval(x * 0.55, -0.34, 0.2, 0.18, shade(c, 1.5))
        p.oval(x * 0.44, 0.44, 0.13, 0.13, shade(c, 1.5))
        p.line([(x * 0.04, -0.5), (x * 0.2, -0.92)], INK, 0.04)
        p.oval(x * 0.2, -0.94, 0.06, 0.06, INK)
    p.oval(0, 0.05, 0.11, 0.56, INK)
    p.oval(0, -0.48, 0.14, 0.14, INK)
    return (0, -0.6), (0, -0.3)


def bear(p, c, _):
    for x in (-0.36, 0.36):
        p.oval(x, -0.62, 0.19, 0.19, c)
        p.oval(x, -0.62, 0.1, 0.1, shade(c, 0.7))
    p.oval(0, 0.48, 0.56, 0.5, c)
    p.oval(0, 0.55, 0.34, 0.34, shade(c, 1.45))
    for x in (-1, 1):
        p.oval(x * 0.55, 0.32, 0.15, 0.32, c, x * -0.5)
        p.oval(x * 0.32, 0.92, 0.22, 0.13, shade(c, 0.85))
    p.oval(0, -0.26, 0.5, 0.44, c)
    p.oval(0, -0.1, 0.22, 0.18, shade(c, 1.5))
    p.oval(0, -0.17, 0.09, 0.06, INK)
    p.eye(-0.2, -0.34, 0.09)
    p.eye(0.2, -0.34, 0.09)
    return (0, -0.68), (0, 0.14)


def turtle(p, c, _):
    skin = shade(c, 1.4)
    for x in (-0.5, 0.4):
        p.oval(x, 0.6, 0.16, 0.24, skin)
    p.shape([(-0.75, 0.35), (-1.05, 0.5), (-0.7, 0.55)], skin)
    p.oval(0.88, 0.02, 0.27, 0.25, skin)
    p.line([(0.6, 0.35), (0.8, 0.1)], skin, 0.22)
    p.oval(-0.08, 0.4, 0.78, 0.85, c, 0, (180, 360))
    p.oval(-0.08, 0.42, 0.82, 0.14, shade(c, 0.7))
    for x, y in ((-0.4, 0.05), (0.2, 0.05), (-0.1, -0.2), (-0.1, 0.2)):
        p.oval(x, y, 0.14, 0.12, shade(c, 0.7))
    p.eye(0.94, -0.03, 0.09)
    p.line([(0.94, 0.13), (1.08, 0.1)], INK, 0.04)
    return (-0.08, -0.42), (0.7, 0.22)


def penguin(p, c, _):
    for x in (-0.22, 0.26):
        p.oval(x, 0.92, 0.24, 0.1, BEAK)
    for x in (-1, 1):
        p.oval(x * 0.52, 0.25, 0.14, 0.44, shade(c, 0.8), x * -0.35)
    p.oval(0, 0.25, 0.5, 0.68, c)
    p.oval(0.06, 0.38, 0.36, 0.5, WHITE)
    p.oval(0.03, -0.42, 0.4, 0.38, c)
    p.oval(0.12, -0.36, 0.27, 0.24, WHITE)
    p.eye(0.02, -0.42, 0.08)
    p.eye(0.25, -0.42, 0.08)
    p.shape([(0.05, -0.3), (0.24, -0.3), (0.15, -0.14)], BEAK)
    return (0.03, -0.78), (0.04, -0.04)


def owl(p, c, _):
    for x in (-0.34, 0.34):
        p.shape([(x - 0.18, -0.5), (x * 1.3, -0.95), (x + 0.18, -0.5)], c)
    for x in (-0.18, 0.18):
        p.oval(x, 0.9, 0.13, 0.09, BEAK)
    p.oval(0, 0.1, 0.58, 0.78, c)
    p.oval(0, 0.4, 0.36, 0.42, shade(c, 1.45))
    for x in (-1, 1):
        p.oval(x * 0.54, 0.25, 0.15, 0.44, shade(c, 0.75), x * 0.15)
        p.oval(x * 0.24, -0.28, 0.25, 0.25, WHITE)
        p.oval(x * 0.22, -0.26, 0.12, 0.13, INK)
    p.shape([(-0.09, -0.14), (0.09, -0.14), (0, 0.04)], BEAK)
    return (0, -0.62), (0, 0.1)


def mouse(p, c, _):
    p.line([(-0.6, 0.6), (-1.0, 0.75), (-1.1, 0.4)], (240, 160, 170), 0.06)
    for x in (-0.28, 0.5):
        p.oval(x, -0.56, 0.28, 0.28, c)
        p.oval(x, -0.54, 0.17, 0.17, (244, 170, 180))
    p.oval(-0.08, 0.48, 0.56, 0.42, c)
    p.oval(0.08, 0.56, 0.3, 0.28, shade(c, 1.4))
    p.oval(0.14, -0.18, 0.44, 0.38, c)
    p.eye(-0.02, -0.22, 0.09)
    p.eye(0.3, -0.22, 0.09)
    p.oval(0.16, 0.0, 0.08, 0.07, (240, 110, 130))
    return (0.12, -0.52), (0.06, 0.18)


CREATURES = {f.__name__: f for f in (fish, bird, cat, rabbit, frog, snail, butterfly, bear, turtle, penguin, owl, mouse)}


def lorikeet(p, _, r):
    """A bird of many colours with a curved red beak and a green crest."""
    green, blue, red, yellow = COLORS["green"], COLORS["blue"], (226, 70, 44), COLORS["yellow"]
    p.shape([(0.2, -0.66), (0.05, -1.02), (0.38, -0.72), (0.36, -1.06), (0.58, -0.7)], green)
    places = bird(p, green, r, belly=red, head=blue, wing=shade(green, 0.72), beak=red)
    p.oval(0.24, -0.06, 0.3, 0.11, yellow, 0.45)
    p.shape([(0.78, -0.56), (1.08, -0.46), (1.02, -0.16), (0.9, -0.26), (0.76, -0.24)], red)
    p.oval(-0.3, 0.24, 0.16, 0.08, yellow, 0.5)
    return (places[0][0], -0.8), places[1]


def add_extra(p, extra, top, neck, color):
    if extra == "a hat":
        x, y = top
        p.shape([(x - 0.24, y + 0.02), (x - 0.2, y - 0.4), (x + 0.2, y - 0.4), (x + 0.24, y + 0.02)], color)
        p.shape([(x - 0.42, y + 0.08), (x - 0.42, y - 0.02), (x + 0.42, y - 0.02), (x + 0.42, y + 0.08)], shade(color, 0.75))
    elif extra == "a scarf":
        x, y = neck
        p.line([(x - 0.34, y), (x, y + 0.08), (x + 0.34, y)], color, 0.17)
        p.line([(x - 0.2, y + 0.06), (x - 0.28, y + 0.42)], shade(color, 0.85), 0.15)
    elif extra == "a balloon":
        p.line([(-0.5, 0.5), (-0.95, -0.6)], INK, 0.025)
        p.oval(-0.98, -0.9, 0.28, 0.34, color)
        p.oval(-1.06, -1.0, 0.07, 0.1, shade(color, 1.6))
    elif extra == "a flower":
        x, y = 0.98, 0.3
        p.line([(x, y), (x - 0.05, 0.95)], COLORS["green"], 0.06)
        for i in range(5):
            a = i * 2 * math.pi / 5
            p.oval(x + 0.17 * math.cos(a), y + 0.17 * math.sin(a), 0.13, 0.13, color)
        p.oval(x, y, 0.1, 0.1, COLORS["yellow"] if color != COLORS["yellow"] else COLORS["brown"])


def jitter(color, r, amount=10):
    return tuple(min(255, max(0, c + r.randint(-amount, amount))) for c in color)


def page(seed, creature=None):
    """The picture of `seed` (PIL, 64 × 64) and its caption. `creature`: one that the pages do not choose by themselves."""
    r = random.Random(seed)
    name = creature or r.choice(list(CREATURES))
    background = r.choice(list(COLORS))
    color = r.choice([c for c in COLORS if c != background])
    extra = r.choice(EXTRAS) if r.random() < 0.45 else None
    extra_color = r.choice([c for c in COLORS if c not in (background, color)])
    size = r.choice(["big", None] if creature else ["small", "big", None, None])
    image = Image.new("RGB", (S, S), jitter(COLORS[background], r))
    draw = ImageDraw.Draw(image)
    unit = S * {"small": r.uniform(0.19, 0.22), "big": r.uniform(0.37, 0.4), None: r.uniform(0.28, 0.31)}[size]
    room = {"small": 0.2, "big": 0.03, None: 0.09}[size]
    x, y = S * (0.5 + r.uniform(-room, room)), S * (0.52 + r.uniform(-room, room) * 0.7)
    pen = Pen(draw, x, y, unit, r.random() < 0.5, r.uniform(-0.1, 0.1))
    paint = jitter(COLORS[color], r)
    places = (lorikeet if creature == "lorikeet" else CREATURES[name])(pen, paint, r)
    if extra:
        add_extra(pen, extra, *places, jitter(COLORS[extra_color], r))
    # the captions of the lorikeet name a bird that the base has no word for
    words = [size, "pip", "bird"] if creature == "lorikeet" else [size, color, name]
    text = " ".join(word for word in words if word)
    text = f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    if extra:
        text += f" with {extra.split()[0]} {extra_color} {extra.split()[1]}".replace("a orange", "an orange")
    text += f" on {'an' if background[0] in 'aeiou' else 'a'} {background} background"
    return image.resize((SIZE, SIZE), Image.LANCZOS), text


def sheet(pages, columns):
    rows = -(-len(pages) // columns)
    out = Image.new("RGB", (columns * (SIZE + 2), rows * (SIZE + 2)), "white")
    for i, (image, _) in enumerate(pages):
        out.paste(image, (i % columns * (SIZE + 2), i // columns * (SIZE + 2)))
    return out


def write_lorikeet(folder):
    """16 pages to train on, 8 held out, each with metadata.jsonl."""
    for part, seeds in (("train", range(1000, 1016)), ("heldout", range(2000, 2008))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        lines = []
        for i, seed in enumerate(seeds):
            image, text = page(seed, "lorikeet")
            image.save(folder / part / f"{i:02}.png", optimize=True)
            lines.append(json.dumps({"file_name": f"{i:02}.png", "text": text}))
        (folder / part / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--lorikeet":
        write_lorikeet(Path(sys.argv[2]))
    else:
        pages = [page(i) for i in range(70)] + [page(i, "lorikeet") for i in range(14)]
        sheet(pages, 14).save(sys.argv[1])
        print("\n".join(text for _, text in pages[:8]))
