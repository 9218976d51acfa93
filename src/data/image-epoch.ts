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
  const order = random.shuffle(sizes.map((_, i) => i));
  return random.shuffle(sizedBatches(order, (image) => sizes[image]!, batchSize));
}

/** `items` in batches of at most `batchSize`, each of items of one size. */
export function sizedBatches<T>(
  items: readonly T[],
  sizeOf: (item: T) => number,
  batchSize: number,
): T[][] {
  const bySize = new Map<number, T[]>();
  for (const item of items) {
    const size = sizeOf(item);
    bySize.set(size, [...(bySize.get(size) ?? []), item]);
  }
  const batches: T[][] = [];
  for (const own of bySize.values())
    for (let i = 0; i < own.length; i += batchSize) batches.push(own.slice(i, i + batchSize));
  return batches;
}
