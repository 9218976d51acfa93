import { type HfConfig, numberField } from "./config.ts";

/**
 * Which layers look through a sliding window: by `layer_types`, or, where a configuration has none, all but those
 * that `isFull` names.
 */
export function slidingLayers(
  config: HfConfig,
  isFull: (layer: number) => boolean,
): (layer: number) => boolean {
  const types = config["layer_types"] as readonly string[] | null | undefined;
  return (layer) => (types ? types[layer] === "sliding_attention" : !isFull(layer));
}

/**
 * `config` with rotary parameters for each layer type; the old spelling has one base for full layers and one for
 * sliding ones, and `rope_scaling` for the full ones.
 */
export function withRopeByType(
  config: HfConfig,
  old: { full: string; sliding: string; defaults: readonly [number, number] },
): HfConfig {
  if (config["rope_parameters"]) return config;
  const scaling = (config["rope_scaling"] ?? {}) as HfConfig;
  return {
    ...config,
    rope_parameters: {
      full_attention: { ...scaling, rope_theta: numberField(config, old.full, old.defaults[0]) },
      sliding_attention: { rope_theta: numberField(config, old.sliding, old.defaults[1]) },
    },
  };
}
