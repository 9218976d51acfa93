/** Width and height in pixels. */
export interface ImageSize {
  readonly width: number;
  readonly height: number;
}

/**
 * Sizes of images trained at `resolution`: the square alone, or with `keepsAspect` all from 1:2 to 2:1 whose area is
 * as near to the square's as steps of at least `unit` allow.
 */
export function imageSizes(
  resolution: number,
  { unit, keepsAspect }: { unit: number; keepsAspect: boolean },
): ImageSize[] {
  const square = { width: resolution, height: resolution };
  if (!keepsAspect) return [square];
  // as in other trainers, steps of 64 pixels at 512 and above
  const step = unit * Math.max(1, Math.floor(Math.min(64, resolution / 8) / unit));
  const sizes = new Map([[`${resolution}x${resolution}`, square]]);
  const shortest = Math.ceil(resolution / Math.SQRT2 / step) * step;
  for (let short = shortest; short < resolution; short += step) {
    const long = Math.floor(resolution ** 2 / short / step) * step;
    for (const [width, height] of [
      [short, long],
      [long, short],
    ] as const)
      sizes.set(`${width}x${height}`, { width, height });
  }
  return [...sizes.values()];
}

/** The number of the size in `sizes` whose proportions are nearest to those of `image`. */
export function nearestSize({ width, height }: ImageSize, sizes: readonly ImageSize[]): number {
  const away = (size: ImageSize): number =>
    Math.abs(Math.log(width / height) - Math.log(size.width / size.height));
  let best = 0;
  for (let i = 1; i < sizes.length; i++) if (away(sizes[i]!) < away(sizes[best]!)) best = i;
  return best;
}
