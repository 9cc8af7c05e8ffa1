"""Pictures in files: which format, opened early, one page or file for each connection."""

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tcptrace.errors import MissingFeatureError, TcptraceError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: Final = (".png", ".svg", ".pdf")
# A page takes about a second, and nobody looks at more.
PICTURES_MAX: Final = 50

_ARROWS: Final = {".pdf": "->"}  # the fonts that every PDF reader has of its own know no →
_METADATA: Final[dict[str, dict[str, str | None]]] = {
    ".png": {"Software": "tcptrace"},
    ".svg": {"Date": None, "Creator": "tcptrace"},
    ".pdf": {"CreationDate": None, "Creator": "tcptrace"},
}


@dataclass(frozen=True)
class Page:
    """A picture to be: `tag` tells its file from others, `title` says what it is, `draw` takes the arrow to write."""

    tag: str
    title: str
    draw: Callable[[str], "Figure"]


def check_target(target: str) -> str:
    """The format by the extension.  UsageError if there is none such."""
    extension = Path(target).suffix.lower()
    if extension not in FORMATS:
        raise UsageError(f"{target}: a picture's name ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return extension


class PictureFile:
    """The file that the user named.  Several pictures are pages of a PDF, else files with -TAG before the extension."""

    def __init__(self, target: str) -> None:
        self._path = Path(target)
        self._extension = check_target(target)
        self._file: BinaryIO | None = None
        self._is_new = False

    def open(self, rehearsal: Sequence[Page]) -> None:
        """Imports matplotlib and opens the file, leaving what is in it until there is something better.

        Draws the `rehearsal` and throws it away: fonts and modules that drawing loads late may not be readable any
        more once privileges are dropped.  MissingFeatureError without matplotlib, TcptraceError if the file
        cannot be written.
        """
        load_matplotlib()
        self._is_new = not self._path.exists()
        with _as_error(self._path):
            self._file = open(self._path, "ab")  # noqa: SIM115 - closed by write() or close()
        for page in rehearsal:
            self._save(page, io.BytesIO())

    def write(self, pages: Sequence[Page]) -> list[tuple[str, Page]]:
        """Draws the pages; the names of the files and what is in them.  TcptraceError if one cannot be written.

        If there may be no files beside this one, it gets the first page, and the others are not drawn.
        """
        if self._extension != ".pdf" and len(pages) > 1:
            with contextlib.suppress(PermissionError):
                return self._write_each(pages)
            pages = pages[:1]
        with _as_error(self._path):
            self._write_first(pages)
        return [(str(self._path), page) for page in pages]

    def _write_first(self, pages: Sequence[Page]) -> None:
        if self._file is None:
            return
        self._is_new = False
        if self._file.seekable() and self._path.is_file():
            self._file.truncate(0)
        if self._extension == ".pdf":
            self._save_pages(pages, self._file)
        else:
            self._save(pages[0], self._file)
        self._file.close()

    def _write_each(self, pages: Sequence[Page]) -> list[tuple[str, Page]]:
        written: list[tuple[str, Page]] = []
        for page in pages:
            path = self._path.with_name(f"{self._path.stem}-{page.tag}{self._path.suffix}")
            with _as_error(path, PermissionError if not written else ()), open(path, "wb") as file:
                self._save(page, file)
            written.append((str(path), page))
        self.close()
        return written

    def _save(self, page: Page, file: BinaryIO) -> None:
        if self._extension == ".pdf":
            self._save_pages([page], file)
            return
        from tcptrace.sinks.drawing import canvas

        with canvas.settings():
            figure = page.draw(self.arrow)
            figure.savefig(file, format=self._extension[1:], metadata=_METADATA[self._extension])

    def _save_pages(self, pages: Sequence[Page], file: BinaryIO) -> None:
        from matplotlib.backends.backend_pdf import PdfPages

        from tcptrace.sinks.drawing import canvas

        with canvas.settings(), PdfPages(file, metadata=_METADATA[".pdf"]) as document:
            for page in pages:
                document.savefig(page.draw(self.arrow))

    @property
    def arrow(self) -> str:
        """From one end to the other, in characters that the format has."""
        return _ARROWS.get(self._extension, "→")

    def close(self) -> None:
        """Leaves no empty file behind; may be called twice."""
        if self._file is not None and not self._file.closed:
            self._file.close()
        if self._is_new:
            self._is_new = False
            with contextlib.suppress(OSError):
                if self._path.stat().st_size == 0:
                    self._path.unlink()


@contextlib.contextmanager
def _as_error(path: Path, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """OSErrors as TcptraceError; those of the kind `but` as they are."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise TcptraceError(f"cannot write {path}: {error.strerror or error}") from error


def load_matplotlib() -> None:
    """Everything that drawing imports.  MissingFeatureError where it is not installed."""
    # It tells on stderr about its own cache; whatever is wrong there, the picture is right.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        for backend in ("agg", "pdf", "svg"):
            importlib.import_module(f"matplotlib.backends.backend_{backend}")
    except ImportError as error:
        raise MissingFeatureError("pictures need matplotlib: pip install matplotlib") from error
    from tcptrace.sinks.drawing import graph_figure, sequence_figure  # noqa: F401

    _keep_pdf_metrics()


def _keep_pdf_metrics() -> None:
    """matplotlib opens the metrics of the PDF's fonts anew for each document: by then they may be out of reach."""
    import matplotlib
    from matplotlib.backends import backend_pdf

    folder = Path(matplotlib.get_data_path(), "fonts/pdfcorefonts")
    kept = {str(path): path.read_bytes() for path in folder.glob("Helvetica*.afm")}

    def open_kept(name: Any, *arguments: Any) -> Any:
        return io.BytesIO(kept[str(name)]) if str(name) in kept else open(name, *arguments)

    vars(backend_pdf)["open"] = open_kept  # that module's own; the builtin stays as it is
