"""A trained soft prompt as adapter files: PEFT's own two, hotprompt.json and the model card. Publishes nothing."""

from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftModel

from adapters.files import AdapterFiles, read_adapter_directory
from adapters.manifest import ManifestDraft


def adapter_files(model: PeftModel, draft: ManifestDraft, *, base_name: str, card: str) -> AdapterFiles:
    """The files of a trained adapter. The base model stands in them by its name, never by a path of this machine."""
    peft_config = model.active_peft_config
    peft_config.base_model_name_or_path = base_name
    if getattr(peft_config, "tokenizer_name_or_path", None) is not None:
        peft_config.tokenizer_name_or_path = base_name
    with TemporaryDirectory(prefix="hotprompt-export-") as directory:
        # "auto" would look the base model up by its name, on the network; a soft prompt resizes no embeddings.
        model.save_pretrained(directory, save_embedding_layers=False)
        saved = read_adapter_directory(Path(directory))
    return AdapterFiles(saved.config, saved.weights, draft.canonical_json(), card.encode())
