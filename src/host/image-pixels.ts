import { readFile } from "node:fs/promises";
import type { Sharp } from "sharp";
import type { ImageSize } from "../data/image-sizes.ts";
import type { RgbImage } from "./png-file.ts";

/** The size of the image at `path`, as it is to be seen. @throws Error when it cannot be read as an image */
export async function readImageSize(path: string): Promise<ImageSize> {
  const { width, height, orientation = 1 } = await (await opened(path)).metadata();
  // from 5 on the camera was held upright
  return orientation < 5 ? { width, height } : { width: height, height: width };
}

/**
 * The image at `path` in `size`: upright, on white where it is transparent, in sRGB, scaled to cover the size, its middle
 * cut out. @throws Error when it cannot be read as an image
 */
export async function readPixels(path: string, { width, height }: ImageSize): Promise<RgbImage> {
  const image = await opened(path);
  const rgb = await image
    .rotate() // by its EXIF entry
    .flatten({ background: "white" })
    .toColourspace("srgb")
    .resize(width, height, { fit: "cover", position: "centre" })
    .raw()
    .toBuffer();
  return { width, height, rgb };
}

/** `rgb` mirrored: left is right. */
export function mirrored({ width, height, rgb }: RgbImage): RgbImage {
  const out = new Uint8Array(rgb.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const from = 3 * (y * width + x);
      out.set(rgb.subarray(from, from + 3), 3 * (y * width + width - 1 - x));
    }
  return { width, height, rgb: out };
}

/** A small picture of the file at `path`, at most `side` pixels, as the URL of itself. */
export async function thumbnailUrl(path: string, side: number): Promise<string> {
  const small = await (
    await opened(path)
  )
    .rotate()
    .resize(side, side, { fit: "inside", withoutEnlargement: true })
    .webp({ quality: 92 })
    .toBuffer();
  return `data:image/webp;base64,${small.toString("base64")}`;
}

async function opened(path: string): Promise<Sharp> {
  const { default: sharp } = await import("sharp"); // most commands read no images
  return sharp(await readFile(path));
}
