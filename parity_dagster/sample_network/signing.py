"""Keys that the accounts of the sample network sign with, derived from seeds."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CurveName = Literal["secp256k1", "p256"]
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# the curve, its order, and what a Multikey of it begins with
_CURVES: dict[CurveName, tuple[type[ec.EllipticCurve], int, bytes]] = {
    "secp256k1": (
        ec.SECP256K1,
        0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141,
        b"\xe7\x01",
    ),
    "p256": (ec.SECP256R1, 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551, b"\x80\x24"),
}
_ALGORITHM = ec.ECDSA(SHA256(), deterministic_signing=True)


class PrivateKey:
    """A key of an account; a seed and a curve always make the same one, and it signs the same way each time."""

    __slots__ = ("_key", "_order", "multibase")

    def __init__(self, seed: str, curve: CurveName = "secp256k1") -> None:
        kind, self._order, prefix = _CURVES[curve]
        number = int.from_bytes(sha256(seed.encode()).digest()) % (self._order - 1) + 1
        self._key = ec.derive_private_key(number, kind())
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.multibase = "z" + base58(prefix + point)
        """The public key as a DID document has it: a Multikey."""

    def sign(self, message: bytes, *, high_s: bool = False) -> bytes:
        """Sign a message: 64 bytes, r and the lower of the two values of s.

        Args:
            high_s: take the greater value of s, which AT Protocol does not allow.
        """
        r, s = decode_dss_signature(self._key.sign(message, _ALGORITHM))
        if (s > self._order // 2) != high_s:
            s = self._order - s
        return r.to_bytes(32) + s.to_bytes(32)


def key_of(did: str, rotations: int = 0) -> PrivateKey:
    """Return the key that an account signs with.

    A key takes a millisecond to make, so that a hundred thousand accounts share 64 of them, of both curves.

    Args:
        rotations: how often the account has changed its key.
    """
    return _shared_key((sha256(did.encode()).digest()[0] + rotations) % 64)


@lru_cache(maxsize=64)
def _shared_key(number: int) -> PrivateKey:
    return PrivateKey(f"account/{number}", "p256" if number % 2 else "secp256k1")


def base58(data: bytes) -> str:
    """Write bytes that do not begin with zero in Bitcoin's base58."""
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text
