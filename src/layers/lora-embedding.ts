import { embedding } from "../ops/embedding.ts";
import { checkOptionNames, type LayerOptions } from "./layer-options.ts";
import { LoraLayer } from "./lora-layer.ts";

/** Options of `LoraEmbedding`; there is no bias, and nothing is dropped. */
export interface LoraEmbeddingOptions extends Omit<LayerOptions, "bias" | "dropout" | "dropoutOn"> {
  readonly numEmbeddings: number;
  readonly embeddingDim: number;
}

/** Rows W[ids] + scale · (B·A)ᵀ[ids] for whole numbers ids (…), W (numEmbeddings, embeddingDim) frozen. */
export class LoraEmbedding extends LoraLayer {
  constructor(options: LoraEmbeddingOptions) {
    checkOptionNames(options, ["numEmbeddings", "embeddingDim"], ["bias", "dropout", "dropoutOn"]);
    const { numEmbeddings, embeddingDim } = options;
    super(
      {
        shape: {
          kind: "embedding",
          inFeatures: numEmbeddings,
          outFeatures: embeddingDim,
          kernel: [],
          groups: 1,
        },
        weightShape: [numEmbeddings, embeddingDim],
        build: (ids, weight) => embedding(ids, weight),
        isNormal: true,
        takesIds: true,
      },
      { ...options, bias: false },
    );
  }
}
