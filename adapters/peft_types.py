"""Every PEFT type there is: the adapter kind that it is served as, or the reason why it is not. Knows no file."""

from adapters.manifest import AdapterKind

SERVED: dict[str, AdapterKind] = {
    "PROMPT_TUNING": "prompt_tuning",
    "MULTITASK_PROMPT_TUNING": "multitask_prompt_tuning",
    "P_TUNING": "p_tuning",
    "CPT": "cpt",
    "PREFIX_TUNING": "prefix_tuning",
    "CARTRIDGE": "cartridge",
    "LORA": "lora",
    "IA3": "ia3",
}

REFUSED: dict[str, str] = {
    "ADALORA": "its ranks are pruned while it trains and saved as masks beside its factors",
    "ADAMSS": "its low-rank blocks lie in clustered subspaces of the base weights",
    "ADAPTION_PROMPT": "its gated attention over a prompt in each layer is neither a KV row nor a weight delta",
    "BEFT": "it adds to biases alone",
    "BOFT": "it rotates the base weights, which needs those weights in each pass",
    "C3A": "its delta is a circular convolution, of full rank",
    "DEFT": "it rebuilds base weights from what is left of them after a projection",
    "DELORA": "its delta is scaled by the norms of the base weights",
    "FOURIERFT": "its delta is the inverse Fourier transform of a few coefficients, of full rank",
    "FROD": "it rebuilds base weights from a shared rotation of them",
    "GLORA": "it scales and shifts base weights and biases, which needs those weights in each pass",
    "GRALORA": "its low-rank blocks exchange their hidden values",
    "HIRA": "its delta is multiplied into the base weights, of full rank",
    "HRA": "it reflects the base weights, which needs those weights in each pass",
    "LILY": "its experts are mixed by an average over the whole batch",
    "LN_TUNING": "it replaces layer norms, which are not linear modules",
    "LOHA": "its delta is an element-wise product of two low-rank ones, of full rank",
    "LOKR": "its delta is a Kronecker product, of full rank",
    "MISS": "its blocks are repeated over shards of the inputs instead of a low-rank product",
    "OFT": "it rotates the base weights, which needs those weights in each pass",
    "OSF": "it trains some of the singular directions of the base weights themselves",
    "PEANUT": "its delta is a network over the base weights",
    "POLY": "it routes among several LoRA adapters by task",
    "PSOFT": "its factors are singular vectors of the base weights",
    "PVERA": "its random bases are shared by all layers, and its hidden values are a distribution",
    "RANDLORA": "its random bases are shared by all layers and may not be in the file",
    "ROAD": "it rotates pairs of output values",
    "SHADOW": "it runs a second, smaller model beside the base",
    "SHIRA": "its delta is a sparse matrix, of full rank",
    "SUPERTUNING": "its delta is a sparse set of entries of the base weights",
    "TINYLORA": "its delta is made of the singular vectors of the base weights",
    "TRAINABLE_TOKENS": "it replaces rows of the embedding that all adapters share",
    "UNILORA": "its factors are looked up by indices in a vector that all layers share",
    "VBLORA": "its factors are mixed from a bank of vectors that all layers share",
    "VERA": "its random bases are shared by all layers and may not be in the file",
    "WAVEFT": "its delta is the inverse wavelet transform of a few coefficients, of full rank",
    "XLORA": "it routes among several LoRA adapters token by token",
}

ADAPTER_HUB = (
    "its bottlenecks are small networks between layers, whose inputs may hold the residual stream, and no deltas of "
    "linear modules; LoRA and prefix tuning are served as PEFT saves them"
)
"""Why what another library saves, in a file of the same name, is not served."""
