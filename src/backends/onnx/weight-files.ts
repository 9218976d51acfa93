import { rmSync } from "node:fs";
import { type FileHandle, open, realpath } from "node:fs/promises";
import { tmpdir } from "node:os";
import { parse, relative, resolve, sep } from "node:path";
import { LorikeetError } from "../../errors.ts";
import { convert } from "../../tensor/convert.ts";
import { BYTES, type DType } from "../../tensor/dtype.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { WeightSource } from "../backend.ts";
import type { OnnxExternalData } from "./proto.ts";
import { removeStaleSpills, spillPath } from "./spill-path.ts";

/** Smaller weights stand in the model itself. */
const INLINE_BYTES = 1024;
const ALIGNMENT = 64;

/**
 * Puts frozen weights where ONNX Runtime can map them: those that lie in a file as they are used stay there, the
 * others are written once to a temporary file that all programs share.
 */
export class WeightFiles {
  /** The root of the temporary folder's drive: ONNX Runtime accepts only locations below one folder. */
  readonly folder: string = parse(resolve(tmpdir())).root;
  private readonly source: WeightSource;
  private readonly located = new Map<string, Promise<Uint8Array | OnnxExternalData>>();
  private spill: { readonly path: string; readonly file: FileHandle } | undefined;
  private spilled = 0;
  private last: Promise<unknown> = Promise.resolve();
  private readonly removeSpill = (): void => {
    if (this.spill) rmSync(this.spill.path, { force: true });
  };

  constructor(source: WeightSource) {
    this.source = source;
  }

  /**
   * Where weight `name` is as `dtype`; `compute` gives its values where they are not the source's own.
   * @throws LorikeetError `missing-weight`, `disk-full`
   */
  locate(
    name: string,
    dtype: DType,
    compute?: () => Promise<Tensor>,
  ): Promise<Uint8Array | OnnxExternalData> {
    const key = `${dtype} ${name}`;
    let place = this.located.get(key);
    if (!place) {
      place = this.place(name, dtype, compute);
      this.located.set(key, place);
    }
    return place;
  }

  /** Removes the temporary file. */
  async dispose(): Promise<void> {
    await this.last;
    process.off("exit", this.removeSpill);
    await this.spill?.file.close();
    this.removeSpill();
    this.spill = undefined;
  }

  private async place(
    name: string,
    dtype: DType,
    compute?: () => Promise<Tensor>,
  ): Promise<Uint8Array | OnnxExternalData> {
    if (!compute) {
      const { bytes, dtype: stored, shape } = this.source.get(name);
      if (bytes.kind === "file" && stored === dtype) {
        const location = await this.locationOf(bytes.path);
        const isMappable = location !== undefined && bytes.length === sizeOf(shape) * BYTES[dtype];
        if (isMappable && bytes.length > INLINE_BYTES)
          return { location, offset: bytes.offset, length: bytes.length };
      }
    }
    const { data } = compute ? await compute() : convert(await this.source.read(name), dtype);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return bytes.length <= INLINE_BYTES ? bytes : this.write(bytes);
  }

  /** `path` relative to the drive's root, or undefined when it is on another drive. */
  private async locationOf(path: string): Promise<string | undefined> {
    const real = await realpath(path);
    if (parse(real).root !== this.folder) return undefined;
    return relative(this.folder, real).split(sep).join("/");
  }

  private write(bytes: Uint8Array): Promise<OnnxExternalData> {
    const writing = this.last.then(async () => {
      try {
        const { path, file } = (this.spill ??= await this.createSpill());
        const offset = Math.ceil(this.spilled / ALIGNMENT) * ALIGNMENT;
        await writeAll(file, bytes, offset);
        this.spilled = offset + bytes.length;
        return { location: (await this.locationOf(path))!, offset, length: bytes.length };
      } catch (cause) {
        throw spillError(cause);
      }
    });
    this.last = writing.catch(() => undefined);
    return writing;
  }

  private async createSpill(): Promise<{ path: string; file: FileHandle }> {
    await removeStaleSpills(tmpdir());
    const path = spillPath(tmpdir());
    const file = await open(path, "wx", 0o600);
    process.once("exit", this.removeSpill);
    return { path, file };
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

function spillError(cause: unknown): LorikeetError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LorikeetError(
    "temporary-weights",
    `Expected to write converted weights to ${tmpdir()}, got: ${reason}`,
    {
      hint: "free space there, or set TMPDIR to a folder with room for the model's weights",
      cause,
    },
  );
}
