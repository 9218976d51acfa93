import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mirrored, readImageSize, readPixels } from "./image-pixels.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lorikeet-pixels-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** 12 × 4 pixels: four columns each of red, green, blue. */
const stripes = sharp(
  Uint8Array.from({ length: 3 * 48 }, (_, i) =>
    i % 3 === Math.floor((Math.floor(i / 3) % 12) / 4) ? 255 : 0,
  ),
  { raw: { width: 12, height: 4, channels: 3 } },
);
const pixel = (rgb: Uint8Array, index: number): number[] => [
  ...rgb.slice(3 * index, 3 * index + 3),
];

test("the middle is cut out, not squeezed", async () => {
  const path = join(folder, "stripes.png");
  await stripes.clone().toFile(path);
  const { rgb } = await readPixels(path, { width: 4, height: 4 });
  for (let i = 0; i < 16; i++) expect(pixel(rgb, i)).toEqual([0, 255, 0]);
});

test("what was photographed upright is upright", async () => {
  const path = join(folder, "turned.png");
  await stripes.clone().withMetadata({ orientation: 6 }).toFile(path);
  expect(await readImageSize(path)).toEqual({ width: 4, height: 12 });
  const { rgb } = await readPixels(path, { width: 4, height: 12 });
  expect([pixel(rgb, 1), pixel(rgb, 45)]).toEqual([[255, 0, 0], [0, 0, 255]]); // prettier-ignore
});

test("transparent pixels are white", async () => {
  const path = join(folder, "clear.png");
  const clear = { width: 2, height: 2, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } } as const; // prettier-ignore
  await sharp({ create: clear }).toFile(path);
  const { rgb } = await readPixels(path, { width: 2, height: 2 });
  expect([...rgb].every((value) => value === 255)).toBe(true);
});

test("a mirror image has its rows turned around", () => {
  const rgb = Uint8Array.from({ length: 12 }, (_, i) => i);
  const { rgb: turned } = mirrored({ width: 2, height: 2, rgb });
  expect([...turned]).toEqual([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
});
