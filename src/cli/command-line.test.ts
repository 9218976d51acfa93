import { Writable } from "node:stream";
import { describe, expect, test } from "vitest";
import { LorikeetError } from "../errors.ts";
import { runCommandLine } from "./command-line.ts";
import { COMMANDS } from "./commands.ts";
import { EXIT_CODES } from "./context.ts";
import { reportFailure } from "./failure.ts";

class Text extends Writable {
  text = "";
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString().replace(/\u001b\[\d+m/g, "");
    done();
  }
}

async function lorikeet(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const out = new Text();
  const err = new Text();
  const code = await runCommandLine(argv, { out, err });
  return { code, out: out.text, err: err.text };
}

describe("lorikeet", () => {
  test("alone shows the commands", async () => {
    const { code, out, err } = await lorikeet();
    expect([code, err]).toEqual([EXIT_CODES.ok, ""]);
    for (const { name } of COMMANDS) expect(out).toContain(`  ${name}`);
  });

  test("--version prints the package's", async () => {
    expect((await lorikeet("--version")).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each(COMMANDS.map(({ name }) => name))("%s --help has examples", async (name) => {
    const { code, out } = await lorikeet(name, "--help");
    expect(code).toBe(EXIT_CODES.ok);
    expect(out).toContain("Examples:\n  lorikeet ");
    expect(out).toContain("--debug");
    expect((await lorikeet("help", name)).out).toBe(out);
  });

  test("an unknown command or option is a usage error that names the nearest", async () => {
    expect(await lorikeet("doctr")).toEqual({
      code: EXIT_CODES.usage,
      out: "",
      err: "error[usage]: Unknown command 'doctr'\nhint: Did you mean doctor?\n",
    });
    const { code, err } = await lorikeet("doctor", "--jsn");
    expect(code).toBe(EXIT_CODES.usage);
    expect(err).toContain("Unknown option '--jsn'\nhint: Did you mean --json?\n");
  });

  test("doctor --json is JSON with a status for each finding", async () => {
    const { out } = await lorikeet("doctor", "--json");
    const { findings } = JSON.parse(out) as { findings: { name: string; status: string }[] };
    expect(findings.map(({ name }) => name)).toContain("ONNX Runtime");
    for (const { status } of findings) expect(status).toMatch(/^(ok|limited|missing)$/);
  });
});

describe("reportFailure", () => {
  function report(
    error: unknown,
    style: { debug?: boolean; json?: boolean } = {},
  ): [number, string] {
    const err = new Text();
    const context = { out: new Text(), err, exitCode: 0 };
    const code = reportFailure(error, context, { debug: false, json: false, ...style });
    return [code, err.text];
  }

  test("shows message and hint, the stack only with --debug", () => {
    const error = new LorikeetError("lora-targets", "Expected a match, got none", {
      hint: "List them.",
      cause: new Error("the cause"),
    });
    expect(report(error)).toEqual([
      EXIT_CODES.failed,
      "error[lora-targets]: Expected a match, got none\nhint: List them.\n",
    ]);
    const [, text] = report(error, { debug: true });
    expect(text).toMatch(/caused by: Error: the cause\n\s+at /);
  });

  test("with --json is one line of JSON", () => {
    const [, text] = report(new LorikeetError("shape", "Expected 2, got 3"), { json: true });
    expect(JSON.parse(text)).toEqual({ error: { code: "shape", message: "Expected 2, got 3" } });
    expect(text.trim()).not.toContain("\n");
  });

  test("a wrong configuration is a usage error", () => {
    expect(report(new LorikeetError("config-invalid", "…"))[0]).toBe(EXIT_CODES.usage);
  });

  test("an error that nobody foresaw says so", () => {
    const [code, text] = report(new TypeError("x is not a function"));
    expect(code).toBe(EXIT_CODES.failed);
    expect(text).toContain("error: x is not a function\nhint: Lorikeet did not expect this.");
  });
});
