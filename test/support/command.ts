import { Writable } from "node:stream";
import { runCommandLine } from "../../src/cli/command-line.ts";

/** A stream that keeps what is written to it, without colours. */
export class Captured extends Writable {
  text = "";
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    // colours are not what is tested
    this.text += chunk.toString().replace(/\u001b\[\d+m/g, "");
    done();
  }
}

/** Runs the command line in this process. */
export async function lorikeet(
  ...argv: string[]
): Promise<{ code: number; out: string; err: string }> {
  const out = new Captured();
  const err = new Captured();
  const code = await runCommandLine(argv, { out, err });
  return { code, out: out.text, err: err.text };
}
