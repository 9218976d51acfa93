import { type ChildProcess, spawn } from "node:child_process";
import { pathToFileURL } from "node:url";

/** How a process ended, and what it wrote. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

/** A running `lorikeet` of its own process. */
export interface RunningCommand {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  /** Resolves when the error stream has shown `text`, or when the process is over. */
  readonly shows: (text: string) => Promise<void>;
}

/** The environment of a process whose text is compared; FORCE_COLOR, which CI sets, would outweigh NO_COLOR. */
export const withoutColours: NodeJS.ProcessEnv = {
  ...process.env,
  NO_COLOR: "1",
  FORCE_COLOR: undefined,
};

const LOADER = pathToFileURL("scripts/typescript.js").href;
const isBuilt = process.env["LORIKEET_BUILT"] !== undefined;

/** The file of a module of src: compiled under `npm test`, which has just built it and where it starts sooner, else its source. */
export const moduleFile = (name: string): string =>
  isBuilt ? `dist/${name}.js` : `src/${name}.ts`;

/** What Node.js is given to run the command. */
export const COMMAND: readonly string[] = [
  ...(isBuilt ? [] : ["--import", LOADER]),
  moduleFile("cli/main"),
];

/** Starts the command as a process, with `input` on standard input. */
export function startLorikeet(argv: readonly string[], input = ""): RunningCommand {
  return start([...COMMAND, ...argv], input);
}

/** Starts Node.js on a TypeScript file. */
export function startTypeScript(file: string): RunningCommand {
  return start(["--import", LOADER, file], "");
}

function start(argv: readonly string[], input: string): RunningCommand {
  const child = spawn(process.execPath, argv, { env: withoutColours });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  child.stdin.end(input);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      resolve({ code, signal, out, err });
    });
  });
  const shows = (text: string): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (err.includes(text)) resolve();
      };
      child.stderr.on("data", look);
      child.on("close", () => {
        resolve();
      });
      look();
    });
  return { process: child, ended, shows };
}
