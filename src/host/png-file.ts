import { addPngText } from "../formats/png-text.ts";
import { writeAtomically } from "./files.ts";

/** An image: red, green and blue of each pixel, row by row. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** `image` as a PNG file with `texts` (by keyword) in it. */
export async function encodePng(
  { width, height, rgb }: RgbImage,
  texts: Readonly<Record<string, string>> = {},
): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp"); // most commands make no images
  const png = await sharp(rgb, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
  return addPngText(png, texts);
}

/** Writes `image` as the PNG file `path`, whole or not at all. @throws LorikeetError as `writeAtomically` */
export async function writePng(
  path: string,
  image: RgbImage,
  texts: Readonly<Record<string, string>> = {},
): Promise<void> {
  await writeAtomically(path, await encodePng(image, texts));
}
