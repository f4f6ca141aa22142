"""The key that an account signs with, as its DID document names it, and signatures made with it.

Two curves and three ways to write a key down: Multikey, and the two older types whose names tell the curve. Signatures
are 64 bytes, r and s; of the two values of s that would do, only the lower is accepted, so that nobody but the owner of
the key can give a commit a second signature (and thus a second CID).
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from libipld import decode_multibase

from parity_dagster.errors import MalformedAnswer, NoSigningKey

_K256_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_P256_ORDER = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551

# type of the method → what the decoded key begins with, and its curve
_CURVES: dict[str, tuple[tuple[bytes, type[ec.EllipticCurve]], ...]] = {
    "Multikey": ((b"\xe7\x01", ec.SECP256K1), (b"\x80\x24", ec.SECP256R1)),
    "EcdsaSecp256k1VerificationKey2019": ((b"", ec.SECP256K1),),
    "EcdsaSecp256r1VerificationKey2019": ((b"", ec.SECP256R1),),
}
_ORDERS: dict[str, int] = {"secp256k1": _K256_ORDER, "secp256r1": _P256_ORDER}
_SIGNATURE_LENGTH = 64


class SigningKey:
    """A public key of an account."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key
        self._order = _ORDERS[key.curve.name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key.public_numbers())

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` is this key's of `message`.

        Source: cryptography specification of AT Protocol, "ECDSA Signature Malleability".
        """
        if len(signature) != _SIGNATURE_LENGTH:
            return False
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        if not (0 < r < self._order and 0 < s <= self._order // 2):
            return False
        try:
            self._key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class _Document(msgspec.Struct):
    id: str
    verificationMethod: list[msgspec.Raw] = []


class _Method(msgspec.Struct):
    id: str
    type: str
    publicKeyMultibase: str


def signing_key(document: bytes, did: str) -> SigningKey:
    """Read the key out of a DID document: its first method named `#atproto`.

    Raises:
        MalformedAnswer: not a DID document, or somebody else's.
        NoSigningKey: it names no such key, or one that cannot be used.

    Source: DID specification of AT Protocol, "Representation in DID documents".
    """
    try:
        parsed = msgspec.json.decode(document, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise MalformedAnswer(f"the document of {did} is not a DID document") from exc
    if parsed.id != did:
        raise MalformedAnswer(f"asked for the document of {did}, got the one of {parsed.id[:80]!a}")
    for raw in parsed.verificationMethod:
        try:
            method = msgspec.json.decode(raw, type=_Method)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            continue
        if method.id in ("#atproto", f"{did}#atproto"):
            key = _read_key(method)
            if key is None:
                raise NoSigningKey(f"the key #atproto of {did} cannot be read; its commits cannot be verified")
            return key
    raise NoSigningKey(f"the document of {did} names no key #atproto; its commits cannot be verified")


def _read_key(method: _Method) -> SigningKey | None:
    text = method.publicKeyMultibase
    if not text.startswith("z") or len(text) > 200:
        return None
    try:
        data = decode_multibase(text)[1]
    except ValueError:
        return None
    for prefix, curve in _CURVES.get(method.type, ()):
        point = data.removeprefix(prefix)
        # 33 bytes are a compressed point, which Multikey demands; the older types had the whole one, too
        sizes = (33,) if prefix else (33, 65)
        if data.startswith(prefix) and len(point) in sizes:
            try:
                return SigningKey(ec.EllipticCurvePublicKey.from_encoded_point(curve(), point))
            except ValueError:
                return None
    return None
