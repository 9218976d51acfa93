import type { AdamWStep, Engine } from "../backends/backend.ts";

/** How the gradients of an engine change its parameters: AdamW itself, or something done before it. */
export type Apply = (engine: Engine, update: AdamWStep) => Promise<{ gradNorm: number }>;

/** AdamW. */
export const adamw: Apply = (engine, update) => engine.applyGradients(update);
