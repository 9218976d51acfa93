import { z } from "zod";
import type { LoraSettings } from "./lora-settings.ts";
import { count, COUNT, fieldsOf, TEXTS, YES_NO } from "./train-field.ts";

const lora = fieldsOf("LoRA");
const one = z
  .string()
  .min(1)
  .transform((name) => [name]);
const names = z
  .union([one, z.array(z.string().min(1)).min(1)])
  .nullable()
  .default(null);
const namesOrPattern = z.union([z.string().min(1), z.array(z.string().min(1))]);
const ids = z.array(z.int().min(0)).min(1);
const layers = z.union([
  ids,
  z
    .int()
    .min(0)
    .transform((layer) => [layer]),
]);
const flag = z.boolean().default(false);

/** The settings of the adapter itself. */
export const LORA_FIELDS: { readonly [K in keyof LoraSettings]: z.ZodType<LoraSettings[K]> } = {
  r: lora(count.default(16), COUNT, "Rank of the update."),
  lora_alpha: lora(
    z.number().positive().default(32),
    "a number above 0",
    "Scale of the update: alpha / r.",
  ),
  lora_dropout: lora(
    z.number().min(0).lt(1).default(0),
    "a number from 0 to below 1",
    "Dropout on the input of the adapters.",
  ),
  target_modules: lora(
    namesOrPattern.default("all-linear"),
    'a list of module names, a regular expression, or "all-linear"',
    "Layers that get an adapter: names (matched by suffix), one regular expression for the whole name, or all-linear.",
    "pattern",
  ),
  exclude_modules: lora(
    namesOrPattern.nullable().default(null),
    "a list of module names or a regular expression",
    "Layers left out although target_modules matches them.",
    "pattern",
  ),
  layers_to_transform: lora(
    layers.nullable().default(null),
    "a layer number or a list of them",
    "Only these layers (from 0) get adapters.",
  ),
  layers_pattern: lora(
    names,
    TEXTS,
    "Name that stands before the layer's number, where that is not the first number of a module's name.",
    "list",
  ),
  target_parameters: lora(
    names,
    TEXTS,
    "Weight matrices that get an adapter whatever layer they are in, such as q_proj.weight; with target_modules: [] these alone.",
    "list",
  ),
  rank_pattern: lora(
    z.record(z.string(), count).default({}),
    "a map from module names to ranks",
    "Other ranks for some modules, such as {q_proj: 4}.",
  ),
  alpha_pattern: lora(
    z.record(z.string(), z.number().positive()).default({}),
    "a map from module names to alphas",
    "Other alphas for some modules.",
  ),
  use_rslora: lora(flag, YES_NO, "Scale by alpha / √r instead of alpha / r."),
  use_dora: lora(flag, YES_NO, "Train magnitude and direction apart (DoRA)."),
  bias: lora(
    z.enum(["none", "all", "lora_only"]).default("none"),
    "none, all or lora_only",
    "Biases of the base that train: none, all, or those of layers with an adapter.",
    "text",
  ),
  lora_bias: lora(flag, YES_NO, "Give B a bias."),
  modules_to_save: lora(
    names,
    TEXTS,
    "Modules that train in full and are saved with the adapter; matched by the end of the name.",
    "list",
  ),
  trainable_token_indices: lora(
    z
      .union([ids, z.record(z.string(), ids)])
      .nullable()
      .default(null),
    "a list of token ids, or a map from modules to such lists",
    "Rows of the embedding that train, such as those of new tokens.",
  ),
  ensure_weight_tying: lora(
    flag,
    YES_NO,
    "Where embedding and output head share a matrix, let them share what is trained of it.",
  ),
  init_lora_weights: lora(
    z.union([z.boolean(), z.string()]).default(true),
    "true, false, gaussian, pissa, pissa_niter_N, olora, orthogonal, eva or loftq",
    "Start of A and B. true: A Kaiming-uniform, B zero; pissa, olora, loftq change the base first; eva reads the data first.",
  ),
  eva_config: lora(
    z
      .strictObject({
        rho: z.number().min(1).default(2),
        tau: z.number().min(0).max(1).default(0.99),
        use_label_mask: z.boolean().default(true),
        whiten: flag,
        adjust_scaling_factors: z.boolean().default(true),
      })
      .nullable()
      .default(null),
    "a map with any of rho, tau, use_label_mask, whiten, adjust_scaling_factors",
    "Options of init_lora_weights: eva; unset: {rho: 2, tau: 0.99}.",
  ),
  loftq_config: lora(
    z
      .strictObject({ loftq_bits: z.literal(4).default(4), loftq_iter: count.default(1) })
      .nullable()
      .default(null),
    "a map with loftq_iter (loftq_bits is 4)",
    "Options of init_lora_weights: loftq; unset: {loftq_bits: 4, loftq_iter: 1}.",
  ),
  save_as_lora: lora(
    flag,
    YES_NO,
    "Save a PiSSA or OLoRA adapter as plain LoRA of the untouched base, of twice the rank.",
  ),
  full: lora(
    flag,
    YES_NO,
    "Train every weight instead of an adapter; the result is a model folder.",
  ),
};
