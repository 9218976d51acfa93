import { Random } from "../tensor/random.ts";

/**
 * The batches of pass number `epoch` (from 0) over images, each of images of one size, at most `batchSize`: a pure
 * function of its arguments, so that any place in any pass can be found again.
 * @param sizes number of the size of each image
 */
export function planImageEpoch(
  sizes: readonly number[],
  { batchSize, seed }: { batchSize: number; seed: number },
  epoch: number,
): number[][] {
  const random = new Random(seed).fork(`epoch ${epoch}`);
  const bySize = new Map<number, number[]>();
  for (const image of random.shuffle(sizes.map((_, i) => i))) {
    const size = sizes[image]!;
    bySize.set(size, [...(bySize.get(size) ?? []), image]);
  }
  const batches: number[][] = [];
  for (const images of bySize.values())
    for (let i = 0; i < images.length; i += batchSize) batches.push(images.slice(i, i + batchSize));
  return random.shuffle(batches);
}
