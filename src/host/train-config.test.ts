import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { LorikeetError } from "../errors.ts";
import { configPage, trainFlags } from "./train-config-docs.ts";
import { loraOfConfig } from "./lora-settings.ts";
import {
  checkTrainConfig,
  readFlag,
  readTrainConfig,
  writeTrainConfig,
} from "./train-config-read.ts";
import { TRAIN_KEYS } from "./train-fields.ts";

function failure(raw: Record<string, unknown>): LorikeetError {
  try {
    checkTrainConfig(raw);
  } catch (error) {
    if (error instanceof LorikeetError) return error;
    throw error;
  }
  throw new Error("Expected a LorikeetError, got none");
}

async function file(text: string): Promise<string> {
  const path = join(await mkdtemp(join(tmpdir(), "lorikeet-config-")), "train.yaml");
  await writeFile(path, text);
  return path;
}

describe("checkTrainConfig", () => {
  test("fills in defaults; one path of data becomes a list", () => {
    const config = checkTrainConfig({ data: "chats.jsonl" });
    expect(config).toMatchObject({
      model: "storyteller-6m",
      data: ["chats.jsonl"],
      eval_data: [],
      r: 16,
      lora_alpha: 32,
      target_modules: "all-linear",
      learning_rate: 2e-4,
      eval_steps: null,
    });
    expect(Object.keys(config).sort()).toEqual([...TRAIN_KEYS].sort());
  });

  test("names every fault at once: unknown keys with the nearest, values with what is expected", () => {
    const { code, message } = failure({
      learning_rte: 1e-4,
      epochs: 3,
      r: 0,
      packing: "yes",
      lr_scheduler_type: "cosin",
    });
    expect(code).toBe("config-invalid");
    expect(message.split("\n").sort()).toEqual([
      "Expected `data` to be a text or a list of texts, got nothing.",
      'Expected `lr_scheduler_type` to be constant, constant_with_warmup, linear or cosine, got "cosin" (string).',
      'Expected `packing` to be true or false, got "yes" (string).',
      "Expected `r` to be a whole number of at least 1, got 0 (number).",
      "Expected a known setting, got `epochs`. Did you mean `num_train_epochs`?",
      "Expected a known setting, got `learning_rte`. Did you mean `learning_rate`?",
    ]);
  });

  test.each([
    [{ eval_data: "a.jsonl", validation_split: 0.1 }, "`eval_data` and `validation_split`"],
    [{ resume: true, overwrite: true }, "`resume` and `overwrite`"],
    [{ warmup_steps: 5, warmup_ratio: 0.1 }, "`warmup_steps` and `warmup_ratio`"],
    [{ warmup_steps: 5, lr_scheduler_type: "constant" }, "`constant_with_warmup`"],
    [{ early_stopping_patience: 2 }, "`early_stopping_patience`"],
    [{ task: "text-to-image", class_data_dir: "dogs" }, "`class_prompt`"],
    [{ load_best_model_at_end: true }, "`load_best_model_at_end`"],
    [{ lora_bias: true, use_dora: true }, "`lora_bias` and `use_dora`"],
    [{ layers_pattern: "layers" }, "`layers_to_transform` with `layers_pattern`"],
    [{ optim: "lorafa", loraplus_lr_ratio: 16 }, "`optim: lorafa` and `loraplus_lr_ratio`"],
    [{ save_as_lora: true, init_lora_weights: "loftq" }, "`save_as_lora`"],
    [{ full: true, optim: "lorafa" }, "`full`"],
  ])("refuses settings that contradict each other: %o", (raw, named) => {
    expect(failure({ data: "chats.jsonl", ...raw }).message).toContain(named);
  });

  test("images have defaults of their own; settings of the other task are refused", () => {
    const task = "text-to-image";
    expect(checkTrainConfig({ task, data: "photos" })).toMatchObject({
      model: "picturebook-7m",
      target_modules: ["to_q", "to_k", "to_v", "to_out.0"],
    });
    expect(failure({ task, data: "photos", packing: true }).message).toBe(
      "Expected no `packing` with `task: text-to-image`, got true (boolean).",
    );
    expect(failure({ data: "chats.jsonl", resolution: 512 }).message).toBe(
      "Expected no `resolution` with `task: text-generation`, got 512 (number).",
    );
  });

  test("names variants of LoRA that are not built, and initialisations that do not exist", () => {
    const { message } = failure({ data: "a.jsonl", corda_config: {}, use_qalora: true });
    expect(message).toContain("Expected no `corda_config`: CorDA is not built.");
    expect(message).toContain("Expected no `use_qalora`: QALoRA is not built.");
    const given = failure({
      data: "a.jsonl",
      fan_in_fan_out: true,
      task_type: "CAUSAL_LM",
    }).message;
    expect(given).toContain("Expected no `fan_in_fan_out`: each layer's own layout is known.");
    expect(given).toContain("Expected no `task_type`: `task` says what the model makes.");
    const corda = failure({ data: "a.jsonl", init_lora_weights: "corda" });
    expect(corda.message).toMatch(/got corda: CorDA is not/);
    expect(failure({ data: "a.jsonl", init_lora_weights: "pisa" }).message).toMatch(/got "pisa"/);
    for (const init of [false, "pissa_niter_4", "olora", "orthogonal", "eva", "loftq"])
      expect(checkTrainConfig({ data: "a.jsonl", init_lora_weights: init }).init_lora_weights).toBe(
        init,
      );
  });

  test("standard input can be read once", () => {
    for (const data of [{ data: "-", eval_data: ["-"] }, { data: ["-", "-"] }])
      expect(failure(data).message).toContain("Expected `-` (standard input) once");
    expect(checkTrainConfig({ data: "-", eval_data: "held.jsonl" }).data).toEqual(["-"]);
  });

  test("settings within a map are told to stand at the top level", () => {
    const { message } = failure({
      data: "x",
      lora: { r: 8 },
      training: { lr: 1 },
      other: { x: 1 },
    });
    expect(message.split("\n")).toEqual([
      expect.stringContaining("Settings stand at the top level: leave out `lora:`"),
      expect.stringContaining("Settings stand at the top level: leave out `training:`"),
      expect.stringMatching(/^Expected a known setting, got `other`\./),
    ]);
  });

  test("a key of Object's prototype is as unknown as any other", () => {
    expect(failure({ data: "a.jsonl", constructor: 1 }).message).toContain("`constructor`");
  });

  test.each([
    ["max_steps", 0],
    ["max_steps", 1.5],
    ["lora_dropout", 1],
    ["seed", -1],
    ["device", "gpu"],
    ["data", []],
    ["target_modules", []],
    ["rank_pattern", { q_proj: 0 }],
    ["learning_rate", Number.NaN],
  ])("refuses %s: %o", (key, value) => {
    expect(failure({ data: "chats.jsonl", [key]: value }).message).toContain(`\`${key}\``);
  });
});

describe("readTrainConfig", () => {
  test("flag beats file, file beats default", async () => {
    const path = await file("data: chats.jsonl\nr: 4\nlearning_rate: 5e-4\n");
    const config = await readTrainConfig({ file: path, flags: { r: 8 } });
    expect([config.r, config.learning_rate, config.lora_alpha]).toEqual([8, 5e-4, 32]);
  });

  test("a file that is no YAML map is refused with the place", async () => {
    await expect(readTrainConfig({ file: await file("data: [a\nr: 3") })).rejects.toMatchObject({
      code: "config-file",
      message: expect.stringMatching(/at line \d/) as string,
    });
    await expect(readTrainConfig({ file: await file("- a\n- b") })).rejects.toMatchObject({
      code: "config-file",
    });
    await expect(readTrainConfig({ file: "/nowhere/train.yaml" })).rejects.toMatchObject({
      code: "file-not-found",
    });
  });

  test("what is saved beside the adapter starts the same run again", async () => {
    const config = checkTrainConfig({
      data: ["a.jsonl", "b.jsonl"],
      rank_pattern: { q_proj: 4 },
      eval_data: "held.jsonl",
      resume: true,
    });
    const again = await readTrainConfig({ file: await file(writeTrainConfig(config)) });
    expect(again).toEqual({ ...config, resume: false });
  });
});

describe("flags", () => {
  test("each setting has one, with its default in the description", () => {
    const flags = trainFlags();
    expect(flags.map(({ key }) => key)).toEqual(TRAIN_KEYS);
    const rate = flags.find(({ key }) => key === "learning_rate");
    expect(rate?.flags).toBe("--learning-rate <number>");
    expect(rate?.description).toContain("(default: 0.0002)");
    expect(flags.find(({ key }) => key === "model")?.flags).toBe("-m, --model <value>");
    expect(flags.filter(({ isSwitch }) => isSwitch).map(({ key }) => key)).toEqual([
      "resume",
      "overwrite",
      "report",
      "use_rslora",
      "use_dora",
      "lora_bias",
      "ensure_weight_tying",
      "save_as_lora",
      "full",
      "packing",
      "skip_bad_rows",
      "aspect_buckets",
      "random_flip",
      "train_text_encoder",
      "load_best_model_at_end",
      "gradient_checkpointing",
      "check_memory",
    ]);
  });

  test.each([
    ["learning_rate", "2e-4", 2e-4],
    ["model", "123", "123"],
    ["data", "a.jsonl, b.jsonl", ["a.jsonl", "b.jsonl"]],
    ["target_modules", "all-linear", "all-linear"],
    ["target_modules", "q_proj", ["q_proj"]],
    ["target_modules", ".*layers\\.[01]\\..*q_proj", ".*layers\\.[01]\\..*q_proj"],
    ["rank_pattern", "{q_proj: 4}", { q_proj: 4 }],
    ["layers_to_transform", "[0, 1]", [0, 1]],
    ["layers_to_transform", "0, 1", [0, 1]],
    ["trainable_token_indices", "5,9,12", [5, 9, 12]],
    ["rank_pattern", "{q_proj: ", "{q_proj: "],
  ] as const)("%s %s", (key, text, value) => {
    expect(readFlag(key, text)).toEqual(value);
  });
});

test("one layer to transform may stand without a list, as in PEFT", () => {
  expect(checkTrainConfig({ data: "a.jsonl", layers_to_transform: 3 }).layers_to_transform).toEqual(
    [3],
  );
  expect(failure({ data: "a.jsonl", layers_to_transform: -1 }).message).toContain("a layer number");
});

test("the LoRA part of a configuration keeps every value", () => {
  const config = checkTrainConfig({
    data: "a.jsonl",
    r: 4,
    lora_alpha: 8,
    lora_dropout: 0.1,
    target_modules: ["q_proj"],
    use_rslora: true,
    use_dora: true,
    init_lora_weights: "gaussian",
  });
  expect(loraOfConfig(config)).toMatchObject({
    r: 4,
    alpha: 8,
    dropout: 0.1,
    targetModules: ["q_proj"],
    useRslora: true,
    useDora: true,
    init: "gaussian",
    baseModel: "storyteller-6m",
  });
});

test("the page of settings has a row for each key, and its example is valid", () => {
  const page = configPage();
  for (const key of TRAIN_KEYS) expect(page).toContain(`| \`${key}\` |`);
  const example = /```yaml\n([^]*?)```/.exec(page)?.[1] ?? "";
  expect(checkTrainConfig(parse(example) as Record<string, unknown>).r).toBe(16);
});

test("an epsilon of 0 is refused: AdamW would divide 0 by 0 where there is no gradient, as torch does", () => {
  for (const adam_epsilon of [0, -1e-8])
    expect(failure({ data: "a.jsonl", adam_epsilon }).message).toMatch(/adam_epsilon.*above 0/s);
});
