import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ByteSource, truncated } from "../formats/byte-source.ts";
import { asFileError } from "./file-errors.ts";

/** A file that grows at its end, is read anywhere, and is gone when the process is. */
export interface TemporaryFile extends ByteSource {
  append(bytes: Uint8Array): Promise<void>;
  /** Closes and removes it. */
  dispose(): Promise<void>;
}

/**
 * A file in a folder of its own in `folder`. It loses its name at once where an open file may (not on Windows), so that
 * nothing is left behind however the process ends.
 * @throws LorikeetError `disk-full` and others, when the temporary folder can't be written
 */
export async function temporaryFile(
  name: string,
  folder: string = tmpdir(),
): Promise<TemporaryFile> {
  const guard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (cause) {
      throw asFileError(cause, folder, "written");
    }
  };
  const own = await guard(mkdtemp(join(folder, "lorikeet-data-")));
  const remove = (): Promise<void> => rm(own, { recursive: true, force: true });
  const handle = await guard(open(join(own, "data"), "w+"));
  await remove().catch(() => undefined);
  let size = 0;
  return {
    name,
    get size(): number {
      return size;
    },
    async append(bytes) {
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await guard(
          handle.write(bytes, done, bytes.length - done, size + done),
        );
        done += bytesWritten;
      }
      size += bytes.length;
    },
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length;) {
        const { bytesRead } = await guard(handle.read(bytes, done, length - done, offset + done));
        if (bytesRead === 0) throw truncated(name, offset + length, offset + done);
        done += bytesRead;
      }
      return bytes;
    },
    async dispose() {
      await handle.close();
      await remove();
    },
  };
}
