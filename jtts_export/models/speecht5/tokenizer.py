"""spm_char.model -> the content of a tokenizer.json that gives the ids of transformers' SpeechT5Tokenizer.

tokenizer_config.json's `normalize` (English numbers spelled out, off in the authors' files) is not carried over:
a tokenizer.json cannot hold it. Ids differ where normalization replaces a character and its grapheme cluster goes
on: the tokenizers library drops the rest, such as the variation selector in "\u2122\ufe0f".
"""

from __future__ import annotations

import json
import string
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import Unigram
from transformers import SpeechT5Tokenizer

from jtts_export.errors import CheckpointError, first_line
from jtts_export.models.source import Source
from jtts_export.models.tokenizer_json import check_ids, read_tokenizer_json

FILE = "spm_char.model"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_SPACE = "\u2581"  # what sentencepiece writes for a space
_Piece = ModelProto.SentencePiece


def read_tokenizer(source: Source, vocab_size: int) -> dict:
    """The checkpoint's tokenizer, from spm_char.model, or else the tokenizer.json that lies in its place.

    Raises CheckpointError naming the file.
    """
    if FILE in source.files:
        name, made = FILE, _from_sentencepiece(source.files[FILE])
    elif "tokenizer.json" in source.files:
        name = "tokenizer.json"
        made = read_tokenizer_json(source.files[name], name)
    else:
        raise CheckpointError(f"no {FILE} and no tokenizer.json in {source.source}")
    check_ids(made, name, vocab_size, "config.json's vocab_size")
    return json.loads(made.to_str())


def character_tokenizer(vocab_size: int) -> dict:
    """A tokenizer of up to 81 characters, for a checkpoint from a seed."""
    letters = "etaonihsrdlucmfwgypbvkqjxz"
    pieces = [*SPECIALS, _SPACE, *letters, *letters.upper(), *string.digits, *",.\"'-;?!:()/[]"][:vocab_size]
    steps = [normalizers.NFKC(), normalizers.Replace(Regex(r"\s"), " "), *_spaces()]
    specials = [AddedToken(token, normalized=False, special=True) for token in SPECIALS]
    return json.loads(_tokenizer(pieces, steps, specials, "</s>", "<unk>").to_str())


def _from_sentencepiece(path: Path) -> Tokenizer:
    proto = _read_proto(path)
    try:  # which tokens are added, with which ids, is spread over files whose forms changed over the years
        theirs = SpeechT5Tokenizer.from_pretrained(path.parent, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"tokenizer_config.json or added_tokens.json: {first_line(error)}") from error
    if str(theirs.eos_token) not in theirs.added_tokens_encoder:
        raise CheckpointError("tokenizer_config.json: eos_token is no token")
    if not theirs.legacy or theirs.split_special_tokens:
        raise CheckpointError("tokenizer_config.json: legacy=false and split_special_tokens are not supported")
    added = theirs.added_tokens_decoder
    for piece in proto.pieces:
        normal = piece.type == _Piece.NORMAL and len(piece.piece) == 1
        if not normal and piece.piece not in theirs.added_tokens_encoder:
            raise CheckpointError(f"{FILE}: the piece '{piece.piece}' is neither a character nor a special token")

    spec = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    steps += _spaces(spec.remove_extra_whitespaces, spec.add_dummy_prefix)
    # Unlike theirs, all are found before normalization: Python's tokenizer looks for them in the text as it is.
    tokens = [
        AddedToken(t.content, lstrip=t.lstrip, rstrip=t.rstrip, normalized=False, special=t.special)
        for t in added.values()
    ]
    pieces = [piece.piece for piece in proto.pieces]
    made = _tokenizer(pieces, steps, tokens, str(theirs.eos_token), pieces[proto.trainer_spec.unk_id])
    for index, token in added.items():
        if made.token_to_id(token.content) != index:
            raise CheckpointError(f"tokenizer_config.json: '{token}' has id {index}, with none before it")
    return made


def _read_proto(path: Path) -> ModelProto:
    try:
        data = path.read_bytes()
        processor = SentencePieceProcessor(model_proto=data)  # checks more than the parser does
        processor.id_to_piece(list(range(len(processor))))  # that they are UTF-8
        proto = ModelProto.FromString(data)
        whole = proto.HasField("trainer_spec") and proto.HasField("normalizer_spec")
    except Exception as error:
        raise CheckpointError(f"{FILE} is damaged or not a sentencepiece model") from error
    if not whole:  # a file cut between two fields can be parsed
        raise CheckpointError(f"{FILE} is truncated")
    if proto.trainer_spec.model_type != TrainerSpec.CHAR:
        kind = TrainerSpec.ModelType.Name(proto.trainer_spec.model_type).lower()
        raise CheckpointError(f"{FILE} is a model of type {kind}, expected char")
    if proto.trainer_spec.treat_whitespace_as_suffix or not proto.normalizer_spec.escape_whitespaces:
        raise CheckpointError(f"{FILE}: treat_whitespace_as_suffix and unescaped whitespace are not supported")
    return proto


def _spaces(remove_extra: bool = True, dummy_prefix: bool = True) -> list[normalizers.Normalizer]:
    """sentencepiece's handling of spaces, which knows U+0020 only, and at the end of a text U+2581 too."""
    leading, repeated, trailing = (
        normalizers.Replace(Regex(pattern), content)
        for pattern, content in (("^ +", ""), (" {2,}", " "), (f"{_SPACE}+$", ""))
    )
    return [
        *([leading, repeated] if remove_extra else []),
        *([normalizers.Prepend(" ")] if dummy_prefix else []),
        normalizers.Replace(" ", _SPACE),
        *([trailing] if remove_extra else []),
    ]


def _tokenizer(
    pieces: list[str], steps: list[normalizers.Normalizer], added: list[AddedToken], eos: str, unknown: str
) -> Tokenizer:
    """One token a character; scores decide nothing. Unigram fuses unknown characters in a row, as char models do."""
    made = Tokenizer(Unigram([(piece, 0.0) for piece in pieces], unk_id=pieces.index(unknown)))
    made.normalizer = normalizers.Sequence(steps)
    made.add_tokens(added)
    made.decoder = decoders.Metaspace()
    ids = [(eos, made.token_to_id(eos))]
    made.post_processor = processors.TemplateProcessing(single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=ids)
    return made
