import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { COMMAND, startLorikeet, withoutColours } from "../support/child.ts";

const inShell = [process.execPath, ...COMMAND].join(" ");

test("chat answers each line of standard input, begins anew at /new, ends with the input", async () => {
  const lines = "Hello!\nAnd who are you?\n/new\nHello!\n";
  const flags = ["--max-new-tokens", "4", "--threads", "1"];
  const { code, out, err } = await startLorikeet(["chat", ...flags], lines).ended;
  expect([code, err]).toEqual([0, ""]);
  const answers = out
    .split("> ")
    .slice(1)
    .map((answer) => answer.trim());
  expect(answers).toHaveLength(5);
  expect(answers[0]).not.toBe("");
  expect(answers[2]).toBe(""); // /new
  expect(answers[3]).toBe(answers[0]);
  expect(answers[4]).toBe(""); // the end
}, 120_000);

test("generate --json prints JSON alone, and the same text for the same seed", async () => {
  const flags = ["--prompt", "Once upon", "--max-new-tokens", "5", "--temperature", "1", "--json"];
  const results = [];
  for (const seed of ["7", "7", "8"]) {
    const run = await startLorikeet(["generate", ...flags, "--seed", seed]).ended;
    expect([run.code, run.err]).toEqual([0, ""]);
    results.push(JSON.parse(run.out) as { text: string; tokens: number });
  }
  const [first, again, other] = results as [(typeof results)[0], ...typeof results];
  expect(first).toMatchObject({ prompt: "Once upon", tokens: 5 });
  expect(again!.text).toBe(first.text);
  expect(other!.text).not.toBe(first.text);
}, 120_000);

test("an unknown option exits with 2 and names the nearest, on the error stream alone", async () => {
  const { code, out, err } = await startLorikeet(["train", "--learning-rat", "1"]).ended;
  expect([code, out]).toEqual([2, ""]);
  expect(err).toContain("Did you mean --learning-rate?");
});

test.skipIf(process.platform === "win32")("a reader that stops early is no error", () => {
  const command = `${inShell} train --help | head -n 1`;
  const { stdout, stderr } = spawnSync("sh", ["-c", command], {
    encoding: "utf8",
    env: withoutColours,
  });
  expect([stdout, stderr]).toEqual(["Usage: lorikeet train [options] [config]\n", ""]);
});

test.skipIf(process.platform !== "linux")("output that does not fit is a coded error", () => {
  const command = `${inShell} doctor --json > /dev/full`;
  const { status, stderr } = spawnSync("sh", ["-c", command], {
    encoding: "utf8",
    env: withoutColours,
  });
  expect(stderr).toContain("error[disk-full]: Expected standard output to be written");
  expect(stderr).not.toContain("    at ");
  expect(status).toBe(1);
});
