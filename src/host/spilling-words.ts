import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memoryWords, type WordStore } from "../data/example-store.ts";
import { asFileError } from "./file-errors.ts";

/** Words kept in memory before a temporary file takes over: 256 MiB. */
const IN_MEMORY = 2 ** 26;
/** Words written at once. */
const BUFFER = 2 ** 18;

/**
 * Words in memory up to a limit, the rest in a temporary file, so that a data set may be larger than memory.
 * @throws LorikeetError `disk-full` and others, when the temporary folder can't be written
 */
export function spillingWords(limit: number = IN_MEMORY, folder: string = tmpdir()): WordStore {
  const memory = memoryWords();
  let size = 0;
  let file: WordStore | undefined;
  return {
    async append(words) {
      if (!file && size + words.length > limit) file = await fileWords(folder, size);
      else if (!file) size += words.length;
      await (file ?? memory).append(words);
    },
    read: (start, length) => (start < size ? memory : file!).read(start, length),
    async dispose() {
      await memory.dispose();
      await file?.dispose();
    },
  };
}

/** Words from number `first` on in a file of their own. */
async function fileWords(folder: string, first: number): Promise<WordStore> {
  const guard = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (cause) {
      throw asFileError(cause, folder, "written");
    }
  };
  const own = await guard(mkdtemp(join(folder, "lorikeet-data-")));
  const handle = await guard(open(join(own, "samples"), "w+"));
  const remove = (): Promise<void> => rm(own, { recursive: true, force: true });
  // where an open file may lose its name (not on Windows) nothing is left behind, however the process ends
  await remove().catch(() => undefined);
  const buffer = new Int32Array(BUFFER);
  let buffered = 0;
  let written = 0;
  const flush = async (): Promise<void> => {
    if (buffered === 0) return;
    await guard(writeAll(handle, bytesOf(buffer.subarray(0, buffered)), written * 4));
    written += buffered;
    buffered = 0;
  };
  return {
    async append(words) {
      for (let done = 0; done < words.length;) {
        const part = words.subarray(done, done + BUFFER - buffered);
        buffer.set(part, buffered);
        done += part.length;
        buffered += part.length;
        if (buffered === BUFFER) await flush();
      }
    },
    async read(start, length) {
      await flush();
      const words = new Int32Array(length);
      await guard(readAll(handle, bytesOf(words), (start - first) * 4));
      return words;
    },
    async dispose() {
      await handle.close();
      await remove();
    },
  };
}

type Handle = Awaited<ReturnType<typeof open>>;

function bytesOf(words: Int32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

async function writeAll(handle: Handle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;)
    done += (await handle.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}

async function readAll(handle: Handle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw new Error("The temporary file of the data set was cut off");
    done += bytesRead;
  }
}
