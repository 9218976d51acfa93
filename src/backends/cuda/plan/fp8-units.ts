/** @file Products of frozen matrices in 8-bit floats: activations get their codes and factors just before. */
import type { Node } from "../../../ir/node.ts";
import type { Gemm } from "../gemm.ts";
import type { Kernel } from "../kernels.ts";
import { type Fp8Matrix, rowEncoders } from "../quantize-fp8.ts";
import { addUnit, type PlanContext } from "./context.ts";
import { type GemmCall, locate, type Matrix } from "./products.ts";
import { timed } from "./skinny.ts";
import { addressOf, newValue, type Value } from "./value.ts";

/** Rows in 8 bits with a factor each. */
interface Encoded {
  readonly codes: Value;
  readonly scales: Value;
}

/** A product x·wᵀ of activations and a frozen matrix, both in 8 bits. */
export interface Fp8Product {
  /** Where in the graph it stands. */
  readonly node: Node;
  /** Rows of `K` elements, and the values that they consist of. */
  readonly x: Matrix;
  readonly reads: readonly Value[];
  readonly K: number;
  readonly w: () => Fp8Matrix;
  readonly N: number;
  readonly tokens: number;
  readonly d: Matrix;
  readonly c: Matrix | undefined;
}

/** Rows of activations for which there are fp8 products: multiples of this. */
const ROWS = 16;

/** Whether products of so many rows can run in fp8. */
export function isFp8Rows(tokens: number): boolean {
  return tokens % ROWS === 0;
}

/** The call; a unit that encodes its activations is added. */
export function fp8Call(context: PlanContext, product: Fp8Product): GemmCall {
  const { tokens: M, N, K, w, d, c } = product;
  const { codes, scales } = encodeRows(context, product);
  const outType = d.value.storage as "bf16" | "f16";
  let gemm: Gemm | undefined;
  const operands = (): Parameters<Gemm["enqueue"]>[0] => ({
    ...{ a: addressOf(codes), b: w().codes, c: locate(c ?? d), d: locate(d) },
    ...{ scaleA: addressOf(scales), scaleB: w().scales },
  });
  return {
    reads: [codes, scales, ...(c && c.value !== d.value ? [c.value] : [])],
    prepare() {
      gemm = context.gemms.plan(
        {
          ...{ M, N, K, transA: false, transB: true, type: "f8_e4m3", outType },
          ...{ lda: K, ldb: K, ldc: (c ?? d).ld, ldd: d.ld, alpha: 1, beta: c ? 1 : 0 },
        },
        operands(),
      );
      return gemm.milliseconds;
    },
    enqueue: () => {
      gemm!.enqueue(operands());
    },
  };
}

function encodeRows(context: PlanContext, product: Fp8Product): Encoded {
  const { node, x, reads, K, tokens } = product;
  const codes = newValue([tokens, K], "u8");
  const scales = newValue([tokens], "f32");
  let kernel: Kernel | undefined;
  const launch = (each: Kernel): void => {
    each.launch([tokens], 256, [locate(x), addressOf(codes), addressOf(scales), K, x.ld]);
  };
  addUnit(context, node, {
    name: "encode fp8",
    reads,
    writes: [codes, scales],
    scratch: [],
    prepare() {
      const kernels = rowEncoders(context.device, x.value.storage, K);
      const times = kernels.map((each) =>
        timed(context, () => {
          launch(each);
        }),
      );
      kernel = kernels[times.indexOf(Math.min(...times))];
    },
    enqueue() {
      launch(kernel!);
    },
  });
  return { codes, scales };
}
