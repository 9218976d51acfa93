import { LorikeetError } from "../errors.ts";

const KINDS: Readonly<Record<string, { code: string; what: string; hint: string }>> = {
  ENOENT: {
    code: "file-not-found",
    what: "does not exist",
    hint: "Check the path.",
  },
  ENOTDIR: {
    code: "file-not-found",
    what: "can't exist: a part of its path is a file, not a folder",
    hint: "Check the path.",
  },
  EISDIR: {
    code: "file-is-folder",
    what: "is a folder",
    hint: "Name a file in it.",
  },
  EACCES: {
    code: "permission-denied",
    what: "is not accessible to this user",
    hint: "Change its permissions, or choose another folder.",
  },
  EPERM: {
    code: "permission-denied",
    what: "is not accessible to this user",
    hint: "Change its permissions, or choose another folder.",
  },
  EROFS: {
    code: "read-only",
    what: "is on a read-only file system",
    hint: "Choose an output folder on a disk that can be written.",
  },
  ENOSPC: {
    code: "disk-full",
    what: "does not fit: the disk is full",
    hint: "Free some space, or choose an output folder on another disk. Nothing was overwritten.",
  },
  EDQUOT: {
    code: "disk-full",
    what: "does not fit: the disk quota is used up",
    hint: "Free some space, or choose an output folder on another disk. Nothing was overwritten.",
  },
};

/**
 * `cause` as a coded error about `path` when it is an error of the operating system; anything else unchanged.
 * `expected` finishes "Expected ‹path› to be …": readable, written.
 */
export function asFileError(cause: unknown, path: string, expected: string): unknown {
  if (cause instanceof LorikeetError || !(cause instanceof Error)) return cause;
  const errno = (cause as NodeJS.ErrnoException).code;
  if (errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) return cause;
  const kind = KINDS[errno] ?? {
    code: "file-error",
    what: `failed with ${errno}`,
    hint: `Look ${errno} up; --debug shows where it comes from.`,
  };
  return new LorikeetError(kind.code, `Expected ${path} to be ${expected}, but it ${kind.what}`, {
    cause,
    hint: kind.hint,
  });
}
