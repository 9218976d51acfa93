import { basename } from "node:path";
import { type ImageSize, nearestSize } from "../data/image-sizes.ts";
import type { DataWarning } from "../data/data-warnings.ts";
import { splitByKey } from "../data/validation-split.ts";
import { type LatentMoments, latentMoments } from "../diffusion/noisy-batch.ts";
import { fromRgb } from "../diffusion/sample.ts";
import { LorikeetError } from "../errors.ts";
import type { CaptionedFile } from "../host/image-folder.ts";
import { mirrored, readImageSize, readPixels } from "../host/image-pixels.ts";
import type { RgbImage } from "../host/png-file.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { Random } from "../tensor/random.ts";
import type { ImageSession } from "./image-session.ts";

/** An image as training reads it: encoded once. */
export interface EncodedImage {
  readonly file: CaptionedFile;
  /** Number of the size that it is trained in. */
  readonly size: number;
  /** Its latents, and those of its mirror image where images are flipped. */
  readonly latents: readonly LatentMoments[];
  /** What SDXL is told: height and width of the file's image, top and left of what was cut out, height and width of that. */
  readonly sizes: readonly number[];
}

/** How images become latents. */
export interface EncodeOptions {
  readonly sizes: readonly ImageSize[];
  readonly flips: boolean;
}

/**
 * The latents of `files`; those that cannot be read are left out and counted in a warning.
 * @throws LorikeetError `no-images` when none is left; `non-finite-latents`
 */
export async function encodeImages(
  session: ImageSession,
  files: readonly CaptionedFile[],
  options: EncodeOptions,
): Promise<{ images: EncodedImage[]; warnings: DataWarning[] }> {
  const images: EncodedImage[] = [];
  const faults: string[] = [];
  for (const file of files) {
    const read = await readFor(file.path, options).catch((cause: unknown) => reasonOf(cause));
    if (typeof read === "string") faults.push(`${file.path} (${read})`);
    else images.push(await encoded(session, file, read, options.flips));
  }
  const shown = faults.slice(0, 5).join("; ") + (faults.length > 5 ? " …" : "");
  if (images.length === 0)
    throw new LorikeetError(
      "no-images",
      `Expected at least one image that can be read, got none of ${files.length}: ${shown}`,
      { hint: "Check that the files are whole images, such as PNG or JPEG." },
    );
  if (faults.length === 0) return { images, warnings: [] };
  const message = `${faults.length} of ${files.length} images cannot be read and are left out: ${shown}`;
  return { images, warnings: [{ code: "images-skipped", message }] };
}

/** `images` to train on and, the share `fraction` of them, to evaluate on. @throws LorikeetError `data-split` */
export function splitImages(
  images: readonly EncodedImage[],
  fraction: number,
  seed: number,
): { train: EncodedImage[]; held: EncodedImage[] } {
  const keys = Uint32Array.from(images, ({ file }) =>
    new Random(seed).fork(`${basename(file.path)} ${file.caption}`).word(),
  );
  const { train, validation } = splitByKey(keys, fraction);
  const pick = (numbers: Uint32Array): EncodedImage[] => Array.from(numbers, (i) => images[i]!);
  return { train: pick(train), held: pick(validation) };
}

interface ReadImage {
  readonly size: number;
  readonly pixels: RgbImage;
  readonly own: ImageSize;
}

async function readFor(path: string, { sizes }: EncodeOptions): Promise<ReadImage> {
  const own = await readImageSize(path);
  const size = nearestSize(own, sizes);
  return { size, own, pixels: await readPixels(path, sizes[size]!) };
}

async function encoded(
  session: ImageSession,
  file: CaptionedFile,
  { size, pixels, own }: ReadImage,
  flips: boolean,
): Promise<EncodedImage> {
  const { width, height } = pixels;
  const scale = Math.max(width / own.width, height / own.height);
  const cut = (side: number, whole: number): number => Math.floor((scale * whole - side) / 2);
  const latents: LatentMoments[] = [];
  for (const image of flips ? [pixels, mirrored(pixels)] : [pixels])
    latents.push(await momentsOf(session, image, file.path));
  const sizes = [own.height, own.width, cut(height, own.height), cut(width, own.width), height, width]; // prettier-ignore
  return { file, size, latents, sizes };
}

async function momentsOf(
  session: ImageSession,
  { rgb, width, height }: RgbImage,
  path: string,
): Promise<LatentMoments> {
  const moments = await session.encode(fromRgb(rgb, width, height));
  const [, both, h, w] = moments.shape as [number, number, number, number];
  const found = latentMoments(toFloat32(moments), [both / 2, h, w]);
  if (found.mean.every(Number.isFinite) && found.deviation.every(Number.isFinite)) return found;
  throw new LorikeetError(
    "non-finite-latents",
    `Expected finite latents, got NaN or infinity from the autoencoder for ${path}`,
    {
      hint: "The autoencoder's weights are damaged, or overflow in 16 bits: use --base-dtype f32, or another VAE.",
    },
  );
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "ENOENT") return "no such file";
  return message.split("\n")[0]!;
}
