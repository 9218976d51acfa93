/** @file The factor on the loss that keeps small gradients of 16-bit floats above zero. https://arxiv.org/abs/1710.03740 */

/** A factor that falls when gradients overflow, and rises again after many that did not. */
export interface LossScale {
  readonly value: number;
  /** Takes note of an update's gradient norm. */
  update(gradNorm: number): void;
}

const [LARGEST, SMALLEST] = [2 ** 24, 1];
const UPDATES_TO_GROW = 1000;

export function lossScale(start: number = 2 ** 16): LossScale {
  let value = start;
  let good = 0;
  return {
    get value() {
      return value;
    },
    update(gradNorm) {
      good = Number.isFinite(gradNorm) ? good + 1 : 0;
      if (good === 0) value = Math.max(SMALLEST, value / 2);
      if (good === UPDATES_TO_GROW) [value, good] = [Math.min(LARGEST, value * 2), 0];
    },
  };
}
