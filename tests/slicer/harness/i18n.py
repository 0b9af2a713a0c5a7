"""`slicer.i18n`: strings pass as they are."""

from __future__ import annotations


def translate(context: str, text: str) -> str:
    return text


def tr(text: str) -> str:
    return text


def getContext(sourceFile: str) -> str:
    return sourceFile
