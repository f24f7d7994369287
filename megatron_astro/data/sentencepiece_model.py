"""A `tokenizer.model` alone, read with the sentencepiece library; where a folder has a `tokenizer.json` too, that one is used."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sentencepiece import SentencePieceProcessor

from megatron_astro._data import Encoder
from megatron_astro.data.encoder_tables import MARK, UnknownTokenizerError, sentencepiece_encoder
from megatron_astro.errors import DataError

ALWAYS = 0  # the compiled encoder's number for a mark before every text


class SentencePieceModel:
    """sentencepiece's own encoder and decoder."""

    def __init__(self, content: bytes, where: str) -> None:
        try:
            self._processor = SentencePieceProcessor(model_proto=content)
        except RuntimeError as error:
            raise DataError(
                f"{where} is not a sentencepiece model: {error}; copy the model's own tokenizer.model there"
            ) from error

    def vocabulary(self) -> Mapping[str, int]:
        """Every piece and its id."""
        return {self._processor.id_to_piece(number): number for number in range(self._processor.get_piece_size())}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, nothing added."""
        return [list(self._processor.encode(text)) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""
        return str(self._processor.decode(list(ids)))

    def added_tokens(self) -> tuple[str, ...]:
        """None: to sentencepiece, control symbols in a text are plain characters."""
        return ()

    def special_id(self, kind: str) -> int | None:
        """The id of the bos or eos token; None where the model has none."""
        number = int(self._processor.bos_id() if kind == "bos" else self._processor.eos_id())
        return number if number >= 0 else None

    def build_encoder(self) -> Encoder:
        """The compiled encoder of this model; UnknownTokenizerError says why there is none."""
        processor = self._processor
        numbers = range(processor.get_piece_size())
        if any(processor.is_unused(number) for number in numbers):
            raise UnknownTokenizerError("it has unused pieces")
        plain = [n for n in numbers if not (processor.is_control(n) or processor.is_unknown(n) or processor.is_byte(n))]
        scores = [processor.get_score(number) for number in plain]
        if any(one <= other for one, other in pairwise(scores)):
            raise UnknownTokenizerError("the scores of its pieces do not fall with their ids")
        every = "".join(chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF)
        if processor.normalize(every) != MARK + every.replace(" ", MARK):
            raise UnknownTokenizerError("it normalises texts")
        pieces = {processor.id_to_piece(number): number for number in plain}
        merges = [(piece[:at], piece[at:]) for piece in pieces for at in range(1, len(piece))]
        merges = [(left, right) for left, right in merges if left in pieces and right in pieces]
        bytes_ = {processor.id_to_piece(number): number for number in numbers if processor.is_byte(number)}
        ranks = [pieces[left + right] for left, right in merges]
        return sentencepiece_encoder(pieces | bytes_, merges, ranks, ALWAYS, [], [])
