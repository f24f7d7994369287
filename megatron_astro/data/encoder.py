"""Text to token ids at speed: a compiled encoder where it is proven to give the reference's ids, the reference everywhere else.

The proof is made each time a tokenizer is loaded: every part of it must be one the compiled encoder was written for (`encoder_tables`),
and both must give the same ids for the probe texts below and for the tokenizer's own tokens. If not, the log says why and the reference
does all the work. Texts with unassigned characters, or with added tokens of unusual rules, go to the reference one by one.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_astro._data import Encoder
from megatron_astro.data.encoder_tables import UnknownTokenizerError
from megatron_astro.data.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)

PROBED_TOKENS = 2048
PROBES = (
    "",
    " ",
    "  ",
    "   a",
    "a ",
    "a  b",
    "\n",
    "\r\n \r\n x",
    " \n\n  \tx \n",
    "\t\ta",
    "\u00a0\u2003b\u3000",
    "\x00\x01\x1f\x7f",
    "\u0085\u2028",
    "It's we'll THEY'RE I'M 'S 'sS '\u017f ''d 've've x'tt",
    "12345 6 78 \u00bd\u00b2\u0663\u2163 3.14159e-27",
    "a1b22c333d4444",
    "na\u00efve caf\u00e9 cafe\u0301 \u00c5ngstr\u00f6m \u2609 M\u2299 \u03b1\u03b2\u03b3 \u0416 \u05d0\u05d1",
    "\u0639\u0631\u0628 \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0 \ud55c\uad6d\uc5b4 \U0001f52d\U0001f469\u200d\U0001f680 \U0001d54f\U00020000",
    "\u2581\u2581a\u2581b \u2581",
    "a\ufffdb\ufeff",
    r"$\alpha_{\rm CO} = 4.3\,M_\odot\,({\rm K\,km\,s^{-1}\,pc^2})^{-1}$ \citep{Bolatto+13}",
    "!!!???...---===~~~\n\n((([[[{{{",
    "<s></s><unk><0x0A>",
    "x" * 300,
    "ab" * 200,
    "The Hubble constant is 73.04 \u00b1 1.04 km/s/Mpc; z=1.5, t0 ~ 13.8 Gyr.\n" * 3,
    " " * 100 + "y",
    "\n" * 40,
    "\u4e2d" * 90,
)


class TextEncoder:
    """Encodes batches of texts; `reason` says why the compiled encoder is not used, and is empty where it is."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.reason = ""
        self._compiled: Encoder | None = None
        try:
            compiled = tokenizer.build_encoder()
            self._prove(compiled)
            self._compiled = compiled
        except UnknownTokenizerError as error:
            self.reason = str(error)
            logger.info("%s: encoding with the reference library, because %s", tokenizer.folder, error)

    def encode_batch(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Ids of all texts end to end, [tokens], and how many each has, [texts]: the reference's, number for number."""
        if self._compiled is None:
            return _join(self.tokenizer.encode_batch(texts))
        ids, lengths = self._compiled.encode_batch(list(texts))
        refused = np.flatnonzero(lengths < 0).tolist()
        if not refused:
            return ids, lengths
        parts = np.split(ids, np.cumsum(np.maximum(lengths, 0))[:-1])
        for number, replacement in zip(refused, self.tokenizer.encode_batch([texts[number] for number in refused]), strict=True):
            parts[number] = np.array(replacement, np.int32)
        return np.concatenate(parts), np.array([part.size for part in parts])

    def _prove(self, compiled: Encoder) -> None:
        texts = [*PROBES, *self._token_texts()]
        ids, lengths = compiled.encode_batch(texts)
        stop = 0
        for text, length, expected in zip(texts, lengths.tolist(), self.tokenizer.encode_batch(texts), strict=True):
            start, stop = stop, stop + max(length, 0)
            if length >= 0 and ids[start:stop].tolist() != expected:
                raise UnknownTokenizerError(f"it encodes the probe {text[:40]!r} in another way")

    def _token_texts(self) -> list[str]:
        """Tokens of the vocabulary as text, evenly spread over it, alone and in company."""
        ids = np.unique(np.linspace(0, self.tokenizer.vocabulary_size - 1, PROBED_TOKENS).astype(np.int64)).tolist()
        known = set(self.tokenizer.vocabulary().values())
        alone = [self.tokenizer.decode([number]) for number in ids if number in known]
        together = ["".join(alone[start : start + 16]) for start in range(0, len(alone), 16)]
        return [*alone, *together]


def _join(ids: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    lengths = np.array([len(part) for part in ids], np.int64)
    return np.fromiter((one for part in ids for one in part), np.int32, int(lengths.sum())), lengths
