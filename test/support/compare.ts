import type { TypedArray } from "../../src/tensor/dtype.ts";

/** Mean squared error over the mean square of `want`, which counts as at least 1e-6: values are about 1. */
export function nmse(got: TypedArray, want: TypedArray): number {
  let error = 0;
  let square = 0;
  for (let i = 0; i < want.length; i++) {
    error += (Number(got[i]!) - Number(want[i]!)) ** 2;
    square += Number(want[i]!) ** 2;
  }
  return error / Math.max(square, 1e-6 * want.length, Number.MIN_VALUE);
}

/** What a failed comparison prints: the worst element, the NMSE and how many elements differ by more than 1e-5. */
export function describeDifference(got: TypedArray, want: TypedArray): string {
  let worst = 0;
  let differing = 0;
  for (let i = 0; i < want.length; i++) {
    const difference = Math.abs(Number(got[i]!) - Number(want[i]!));
    if (difference > 1e-5 * Math.max(1, Math.abs(Number(want[i]!)))) differing++;
    if (!(difference <= Math.abs(Number(got[worst]!) - Number(want[worst]!)))) worst = i;
  }
  return `NMSE ${nmse(got, want)}, ${differing} of ${want.length} differ, worst at ${worst}: got ${got[worst]}, want ${want[worst]}`;
}
