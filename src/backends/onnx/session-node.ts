import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { LorikeetError } from "../../errors.ts";
import { type DType, viewAs } from "../../tensor/dtype.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Session, SessionOptions } from "./session.ts";

const ORT_TYPES: Partial<Record<DType, OrtTensor.Type>> = {
  f64: "float64",
  f32: "float32",
  f16: "float16",
  i64: "int64",
  i32: "int32",
  i16: "int16",
  i8: "int8",
  u8: "uint8",
  bool: "bool",
};
const DTYPES = Object.fromEntries(
  Object.entries(ORT_TYPES).map(([dtype, type]) => [type, dtype]),
) as Record<string, DType>;

/**
 * An ONNX Runtime session in this thread; `run` blocks it.
 * @throws LorikeetError `onnx-session` when the model or its weights cannot be loaded
 */
export async function createNodeSession(
  model: Uint8Array,
  options: SessionOptions,
): Promise<Session> {
  let session: InferenceSession;
  try {
    session = await InferenceSession.create(model, sessionOptions(options));
  } catch (cause) {
    throw failure("onnx-session", "load the program", cause, options.provider);
  }
  return {
    async run(feeds, outputs) {
      const inputs: Record<string, OrtTensor> = {};
      for (const [name, value] of Object.entries(feeds)) inputs[name] = toOrt(name, value);
      try {
        return fromOrt(await session.run(inputs, outputs));
      } catch (cause) {
        throw failure("onnx-run", "run the program", cause, options.provider);
      }
    },
    async release() {
      if (options.profilePrefix) session.endProfiling();
      await session.release();
    },
  };
}

/**
 * Weights stay mapped from their files only without prepacking and folding, recomputation only without
 * common-subexpression elimination, and memory patterns would reserve the peak twice.
 */
function sessionOptions(options: SessionOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: [options.provider],
    intraOpNumThreads: options.threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    // the graph leaves nothing to the basic optimizers, and they take as long as all else that makes a session
    graphOptimizationLevel: options.provider === "cpu" ? "disabled" : "basic",
    enableMemPattern: false,
    enableCpuMemArena: options.keepsMemory,
    logSeverityLevel: 3,
    ...(options.profilePrefix && {
      enableProfiling: true,
      profileFilePrefix: options.profilePrefix,
    }),
    extra: {
      session: {
        disable_prepacking: options.packsWeights ? "0" : "1",
        model_external_initializers_file_folder_path: options.weightsFolder,
      },
      optimization: {
        disable_specified_optimizers: "CommonSubexpressionElimination;ConstantFolding",
      },
    },
  };
}

function toOrt(name: string, { dtype, shape, data }: Tensor): OrtTensor {
  const type = ORT_TYPES[dtype];
  if (!type)
    throw new LorikeetError(
      "onnx-dtype",
      `Expected input "${name}" of a type that ONNX Runtime accepts, got ${dtype}`,
      {
        hint: `convert it to f32 or an integer type first`,
      },
    );
  return new OrtTensor(type, data as never, shape);
}

function fromOrt(results: InferenceSession.ReturnType): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(results).map(([name, { type, dims, data }]) => {
      const dtype = DTYPES[type]!;
      const { buffer, byteOffset, length } = data as Float32Array;
      return [name, { dtype, shape: dims, data: viewAs(dtype, buffer, byteOffset, length) }];
    }),
  );
}

function failure(code: string, action: string, cause: unknown, provider: string): LorikeetError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (/bad_alloc|out of memory|failed to allocate/i.test(reason))
    return new LorikeetError(
      "out-of-memory",
      `Expected enough memory to ${action}, got: ${reason}`,
      {
        hint: "use a smaller batch or sequence length, gradient checkpointing, or a smaller base dtype",
        cause,
      },
    );
  if (provider === "webgpu" && /adapter/i.test(reason))
    return new LorikeetError("no-webgpu", `Expected a WebGPU adapter, got: ${reason}`, {
      hint: "install the GPU's Vulkan driver and the Vulkan loader (libvulkan1), or use --device cpu",
      cause,
    });
  return new LorikeetError(
    code,
    `Expected ONNX Runtime (${provider}) to ${action}, got: ${reason}`,
    { hint: "run `lorikeet doctor`, and report what it prints with this message", cause },
  );
}
