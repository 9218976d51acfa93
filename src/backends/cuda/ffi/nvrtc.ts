/** @file NVRTC: CUDA C source text to machine code. */
import { LorikeetError } from "../../../errors.ts";
import { bind, type Bound, openLibrary } from "./library.ts";

const SIGNATURES = {
  nvrtcVersion: ["int", "ptr", "ptr"],
  nvrtcCreateProgram: ["int", "ptr", "str", "str", "int", "ptr", "ptr"],
  nvrtcDestroyProgram: ["int", "ptr"],
  nvrtcCompileProgram: ["int", "uint64_t", "int", "const char **"],
  nvrtcGetProgramLogSize: ["int", "uint64_t", "ptr"],
  nvrtcGetProgramLog: ["int", "uint64_t", "ptr"],
  nvrtcGetCUBINSize: ["int", "uint64_t", "ptr"],
  nvrtcGetCUBIN: ["int", "uint64_t", "ptr"],
} as const;

/** The run-time compiler. */
export interface Compiler {
  readonly path: string;
  readonly version: string;
  /**
   * Machine code for `source`, and the compiler's remarks.
   * @throws LorikeetError `cuda-compile` with the compiler's log
   */
  compile(
    name: string,
    source: string,
    options: readonly string[],
  ): { cubin: Uint8Array; log: string };
}

let compiler: Compiler | undefined;

/** @throws LorikeetError `cuda-library` when NVRTC is not installed */
export function openCompiler(): Compiler {
  if (compiler) return compiler;
  const library = openLibrary(
    "NVRTC",
    ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
    "Install the CUDA toolkit (12.4 or later), or `pip install nvidia-cuda-nvrtc`.",
  );
  const nvrtc = bind(library, SIGNATURES);
  const [major, minor] = [new Int32Array(1), new Int32Array(1)];
  nvrtc.nvrtcVersion(major, minor);
  compiler = {
    path: library.path,
    version: `${major[0]}.${minor[0]}`,
    compile: (name, source, options) => compile(nvrtc, name, source, options),
  };
  return compiler;
}

function compile(
  nvrtc: Bound<typeof SIGNATURES>,
  name: string,
  source: string,
  options: readonly string[],
): { cubin: Uint8Array; log: string } {
  const out = new BigUint64Array(1);
  const check = (status: number, doing: string): void => {
    if (status !== 0)
      throw new LorikeetError(
        "cuda-compile",
        `NVRTC failed (status ${status}) when ${doing} ${name}`,
        { hint: "Report it with what `lorikeet doctor` prints; --device cpu does without." },
      );
  };
  check(nvrtc.nvrtcCreateProgram(out, source, name, 0, null, null), "reading");
  const program = out[0]!;
  const status = nvrtc.nvrtcCompileProgram(program, options.length, options);
  const bytes = (
    size: typeof nvrtc.nvrtcGetCUBINSize,
    get: typeof size,
    doing: string,
  ): Uint8Array => {
    check(size(program, out), doing);
    const data = new Uint8Array(Number(out[0]));
    if (data.length > 0) check(get(program, data), doing);
    return data;
  };
  const log = new TextDecoder().decode(
    bytes(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, "reading the log of"),
  );
  const text = log.replace(/\0+$/, "").trim();
  if (status !== 0)
    throw new LorikeetError(
      "cuda-compile",
      `NVRTC could not compile ${name} (status ${status}):\n${text}`,
      {
        hint: "This is a fault of Lorikeet or of a mismatched CUDA toolkit; please report it with `lorikeet doctor`.",
      },
    );
  const cubin = bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, "reading the code of");
  out[0] = program;
  nvrtc.nvrtcDestroyProgram(out);
  return { cubin, log: text };
}
