import { LorikeetError, nearest } from "../../errors.ts";
import { formatShape, sameShape, type Shape, sizeOf } from "../../tensor/shape.ts";
import { type Tensor, tensor } from "../../tensor/tensor.ts";
import type { AdamWStep } from "../backend.ts";
import { accumulate, adamw, clipFactor, globalNorm } from "./adamw.ts";
import type { Shapes } from "./protocol.ts";

interface Parameter {
  readonly shape: Shape;
  value?: Float32Array;
  gradient?: Float32Array;
  average?: Float32Array;
  averageOfSquares?: Float32Array;
}
type Slot = "value" | "gradient" | "average" | "averageOfSquares";

const SUFFIXES: readonly (readonly [string, Slot])[] = [
  [".grad", "gradient"],
  [".exp_avg", "average"],
  [".exp_avg_sq", "averageOfSquares"],
];

/** Trainable parameters with their gradients and optimizer state, as f32 arrays in this thread. */
export class Parameters {
  private readonly byName = new Map<string, Parameter>();

  /**
   * Makes the parameters of a program known.
   * @throws LorikeetError `shape` when one is known with another shape
   */
  declare(shapes: Shapes): void {
    for (const [name, shape] of Object.entries(shapes)) {
      const known = this.byName.get(name);
      if (!known) this.byName.set(name, { shape });
      else if (!sameShape(known.shape, shape))
        throw new LorikeetError(
          "shape",
          `Expected parameter "${name}" to keep its shape ${formatShape(known.shape)}, got ${formatShape(shape)}`,
        );
    }
  }

  /**
   * The values to feed for `names`; not copies.
   * @throws LorikeetError `missing-parameter` naming all that were never set
   */
  feeds(names: readonly string[]): Record<string, Tensor> {
    const missing = names.filter((name) => !this.byName.get(name)?.value);
    if (missing.length > 0)
      throw new LorikeetError(
        "missing-parameter",
        `Expected every trainable parameter to be set before running, ${missing.length} are not: ${missing.slice(0, 3).join(", ")}`,
        { hint: "set each with engine.set(name, tensor)" },
      );
    return Object.fromEntries(names.map((name) => [name, this.get(name)]));
  }

  /**
   * A state tensor: `<parameter>`, or that with `.grad`, `.exp_avg` or `.exp_avg_sq`; zeros when never written.
   * @throws LorikeetError `missing-parameter` when no program has such a parameter
   */
  get(name: string): Tensor {
    const [parameter, slot] = this.find(name);
    return tensor(
      "f32",
      parameter.shape,
      parameter[slot] ?? new Float32Array(sizeOf(parameter.shape)),
    );
  }

  /**
   * Sets a state tensor to `value` (f32, not copied). A name that is not known becomes a parameter.
   * @throws LorikeetError `shape` or `onnx-dtype` when `value` does not fit
   */
  set(name: string, value: Tensor): void {
    if (!(value.data instanceof Float32Array))
      throw new LorikeetError("onnx-dtype", `Expected state "${name}" in f32, got ${value.dtype}`, {
        hint: "convert it first",
      });
    if (!this.has(name)) this.byName.set(name, { shape: value.shape });
    const [parameter, slot] = this.find(name);
    if (!sameShape(parameter.shape, value.shape))
      throw new LorikeetError(
        "shape",
        `Expected state "${name}" of shape ${formatShape(parameter.shape)}, got ${formatShape(value.shape)}`,
      );
    parameter[slot] = value.data;
  }

  /** Adds to the gradient buffers; takes over arrays of gradients that were clear. */
  addGradients(gradients: Iterable<readonly [string, Float32Array]>): void {
    for (const [name, gradient] of gradients) {
      const parameter = this.byName.get(name)!;
      if (parameter.gradient) accumulate(parameter.gradient, gradient);
      else parameter.gradient = gradient;
    }
  }

  /** The gradients that were added up, by parameter; they are clear then. */
  takeGradients(): Record<string, Tensor> {
    const taken = [...this.byName].flatMap(([name, { shape, gradient }]) =>
      gradient ? [[name, tensor("f32", shape, gradient)] as const] : [],
    );
    this.clearGradients();
    return Object.fromEntries(taken);
  }

  /** Clips, applies AdamW and clears; leaves the parameters alone when the norm is not finite. */
  apply(update: AdamWStep): number {
    const entries = [...this.byName].filter(
      ([, parameter]) => parameter.gradient && parameter.value,
    );
    const { lossScale = 1, maxGradNorm } = update;
    const gradNorm = globalNorm(entries.map(([, parameter]) => parameter.gradient!)) / lossScale;
    const clip = clipFactor(gradNorm, maxGradNorm) / lossScale;
    if (Number.isFinite(gradNorm))
      for (const [name, parameter] of entries) {
        const scale = update.learningRateScales?.[name] ?? 1;
        if (scale === 0) continue;
        const size = parameter.value!.length;
        parameter.average ??= new Float32Array(size);
        parameter.averageOfSquares ??= new Float32Array(size);
        adamw(parameter as Required<Parameter>, update, clip, scale);
      }
    this.clearGradients();
    return gradNorm;
  }

  /** Drops all gradients. */
  clearGradients(): void {
    for (const parameter of this.byName.values()) delete parameter.gradient;
  }

  private has(name: string): boolean {
    return (
      this.byName.has(name) ||
      SUFFIXES.some(([suffix]) => this.byName.has(withoutSuffix(name, suffix)))
    );
  }

  private find(name: string): [Parameter, Slot] {
    const own = this.byName.get(name);
    if (own) return [own, "value"];
    for (const [suffix, slot] of SUFFIXES) {
      const parameter = this.byName.get(withoutSuffix(name, suffix));
      if (parameter) return [parameter, slot];
    }
    throw new LorikeetError(
      "missing-parameter",
      `Expected the name of a trainable parameter or its state, got "${name}"`,
      {
        hint: `nearest names: ${nearest(name, this.byName.keys()).join(", ") || "none, as no parameter was set or compiled yet"}`,
      },
    );
  }
}

/** `name` without `suffix`, or a name that nothing has. */
function withoutSuffix(name: string, suffix: string): string {
  return name.endsWith(suffix) ? name.slice(0, -suffix.length) : "";
}
