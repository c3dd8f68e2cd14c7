"""The one decorator of every kernel, and the folder that keeps the compiled code.

Options and why:
  nogil         epochs run on Python threads that must not hold each other up.
  error_model   "numpy": no zero-division branch inside loops; 1/0 is infinity, as in NumPy.
  no C wrapper  nobody calls a kernel through a C pointer; what kernels `call` by address has no wrapper at all.
  cache         compiling every kernel takes seconds, loading milliseconds.
  no fastmath   contraction and reciprocal estimates differ between machines, and NaN checks would be optimised
                away. The micro-kernels ask for fused multiply-add explicitly; elementwise loops vectorise without it.
"""

import gc
import hashlib
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import llvmlite.binding
import numba
from numba import _dynfunc, types
from numba.core import cgutils, config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.runtime import rtsys
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes
from numba.extending import intrinsic, register_jitable

if config.DISABLE_JIT:
    raise ImportError(
        "hotloop cannot run with NUMBA_DISABLE_JIT=1: its kernels are LLVM vector code without a Python equivalent. "
        "Unset NUMBA_DISABLE_JIT; tests/reference.py in the source tree holds a plain NumPy twin of every kernel."
    )

F = TypeVar("F", bound=Callable[..., Any])


def _source_hash() -> str:
    """Hash of all kernel sources, Numba and processor: Numba itself only watches the file of the cached function."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(f"{numba.__version__} {llvmlite.__version__} {sys.version}".encode())
    digest.update(f"{config.CPU_NAME} {config.CPU_FEATURES} {llvmlite.binding.get_host_cpu_name()}".encode())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    """HOTLOOP_CACHE_DIR, else NUMBA_CACHE_DIR, else the user's cache folder of this platform."""
    chosen = os.environ.get("HOTLOOP_CACHE_DIR") or config.CACHE_DIR
    if chosen:
        return Path(chosen)
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "hotloop" / "cache"
    if platform.system() == "Darwin":
        return Path("~/Library/Caches/hotloop").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hotloop"


_KERNELS: list[Any] = []  # all that `jit` made
SOURCE_HASH = _source_hash()
CACHE_FOLDER = _cache_root() / SOURCE_HASH


class Locator(_CacheLocator):
    """Puts all kernels of one source state into one folder."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file  # Numba's own warnings about what cannot be cached name it
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(CACHE_FOLDER)

    def get_source_stamp(self) -> str:
        return SOURCE_HASH

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "Locator":
        return cls(py_func, py_file)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = (Locator,)


def save_if_possible(cache: Any, save: Callable[[Any, Any], None], sig: Any, data: Any) -> None:
    """Save into a cache that is never a reason to fail: an unwritable folder costs a compilation and one warning."""
    try:
        save(sig, data)
    except OSError as error:
        cache.disable()
        warn_not_kept(error)
    except Exception:  # a broken index: begin it anew
        cache.flush()
        save(sig, data)


class _Cache(FunctionCache):
    """The cache of the processor's kernels, never a reason to fail."""

    _impl_class = _CacheImpl

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Without Numba's hash of the function: the folder has one of all sources, and functions differ in name."""
        return sig, codegen.magic_tuple()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load machine code. Numba would first load all that compiling needs, for 0.35 s, much of SciPy with it."""
        try:
            rtsys.initialize(target_context)  # reference counts, all of it that machine code needs
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except Exception:  # truncated or foreign file: compile again, and overwrite it
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        save_if_possible(self, super().save_overload, sig, data)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def warn_not_kept(error: OSError) -> None:
    """Say once why compiled kernels are not kept, and what to do."""
    _warn_once(
        f"compiled kernels cannot be kept in {CACHE_FOLDER} ({error}); every new process compiles them again. "
        "Set HOTLOOP_CACHE_DIR to a writable folder."
    )


def all_kept() -> bool:
    """Whether everything that this process compiled is in CACHE_FOLDER."""
    return _warn_once.cache_info().currsize == 0


def compiled_and_loaded() -> tuple[int, int]:
    """How many kernels this process had to compile, and how many it found in CACHE_FOLDER, one for each dtype."""
    stats = [kernel.stats for kernel in _KERNELS]
    return sum(sum(one.cache_misses.values()) for one in stats), sum(sum(one.cache_hits.values()) for one in stats)


class _Part(JITCodeLibrary):
    """LLVM code that is only ever linked into a kernel, and optimised and translated there.

    Numba does both for every function and all it calls, so the lowest were done again at each of six levels: the
    mini-batch kernel took 13.5 s instead of 6.4, the per-sample kernel 7.0 instead of 4.5, at the same speed.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):
    """Lowers into a _Part; the function that Numba knows it by has no address."""

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        described = lowered.fndesc
        name = described.qualname.split(".")[-1]
        known_by = _dynfunc.make_function(described.lookup_module(), name, "", 0, lowered.env, (state.library,))
        state.targetctx.insert_user_function(known_by, described, [state.library])
        state.reload_init.extend(state.library._reload_init)
        state["cr"] = lowered._replace(cfunc=known_by)
        return True


NEEDLESS = (InlineClosureLikes, NopythonRewrites)  # no kernel has closures or array expressions; 4 % of the time


class _PartCompiler(CompilerBase):
    """Numba's compiler, with the other lowering."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("part")
        for kind, description in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if kind not in NEEDLESS:
                manager.add_pass(_PartLowering if kind is NativeLowering else kind, description)
        manager.finalize()
        return [manager]


_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_CALLED = _OPTIONS | {"no_cpython_wrapper": True}  # by kernels alone
# Numba hands forceinline on from a function to all that it calls, unless they say no.
_INSIDE: dict[str, Any] = _CALLED | {"pipeline_class": _PartCompiler, "forceinline": False}


def _inside(function: F, counted: bool, **others: Any) -> F:
    dispatcher: Any = numba.njit(_nrt=counted, **_INSIDE | others)(function)
    template = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        """As for any integer: Numba would compile `product` and all below it again for every constant argument."""
        return template([types.unliteral(arg) for arg in args], {key: types.unliteral(arg) for key, arg in kws.items()})

    dispatcher.get_call_template = get_call_template
    return cast(F, dispatcher)


def inner(function: F) -> F:
    """Compile a function that only kernels call: no Python entry, no cache file, no counting of references.

    It may neither allocate arrays nor make and return them. Counting costs two atomic operations for each array that is
    taken out of a tuple: a sample of 64-32-10 took 2.9 us, and 0.6 without.
    """
    return _inside(function, counted=False)


def inlined(function: F) -> F:
    """Like `inner`, compiled into its caller, however large: for what takes arrays and is called all the time.

    Numba takes tuples and arrays apart, and an epoch's become 250 arguments, which a call writes to the stack one by
    one: `bench/race.py --case mnist-784-10-hinge-b1` takes 1.3 times the time with `inner`. No kernel compiles one
    twice: it calls each in one place.
    """
    return _inside(function, counted=False, forceinline=True)


def inner_with_arrays(function: F) -> F:
    """Like `inner`, for a function that allocates arrays, or makes and returns them."""
    return _inside(function, counted=True)


def inner_or_python(function: F) -> F:
    """Like `inner` for kernels; called from Python, the function itself."""
    return cast(F, register_jitable(_nrt=False, **_INSIDE)(function))


def _kept(dispatcher: Any, function: Callable[..., Any]) -> Any:
    """The kernel, with its machine code kept in CACHE_FOLDER, and no collection of garbage while it is compiled.

    That would take 0.7 of 11 s, and find little.
    """
    compile = dispatcher.compile

    def compile_at_once(signature: Any) -> Any:
        with global_compiler_lock:
            collecting = gc.isenabled()
            gc.disable()
            try:
                return compile(signature)
            finally:
                if collecting:
                    gc.enable()

    dispatcher._cache, dispatcher.compile = _Cache(function), compile_at_once
    _KERNELS.append(dispatcher)
    return dispatcher


def jit(function: F, inside: Callable[[F], F] = inner, **others: bool) -> F:
    """Compile a kernel on its first call for each dtype; keep the machine code in CACHE_FOLDER.

    Called from another kernel it is compiled into that kernel, as an `inner` function: an entry and a cache file for
    each of the forty functions under an epoch would double the time of the first compilation.
    """
    dispatcher = _kept(numba.njit(**_OPTIONS | others)(function), function)
    called: Any = inside(function)
    dispatcher.get_call_template, dispatcher.get_overload = called.get_call_template, called.get_overload
    return cast(F, dispatcher)


def brief(function: F) -> F:
    """Compile a kernel that takes about a microsecond: it keeps the interpreter's lock, and counts no references.

    The one costs 0.045 us a call, and twice the time beside a busy thread; the other 0.03 us for an array.
    """
    return jit(function, nogil=False, _nrt=False)


def part(function: F, **others: bool) -> F:
    """Compile a function that kernels `call` by its `address`, and that returns nothing."""
    return cast(F, numba.njit(**_CALLED | others)(function))


def apart(function: F, of: str = "", **others: bool) -> F:
    """Compile what few runs need as a `part`, and keep its machine code in CACHE_FOLDER.

    Compiled into the epoch kernels, all rules and ways to regularise took a quarter of 10 s, all activations and losses
    another, although a run uses few of them. A call by address costs 2 ns. of: tells functions made by one line apart.
    """
    function.__qualname__ += of
    return cast(F, _kept(part(function, **others), function))


def apart_uncounted(function: F) -> F:
    """Compile `apart` what takes arrays and makes none: no references are counted, see `inner`."""
    return apart(function, _nrt=False)


def address(part: Any, *kinds: types.Type) -> int:
    """Where the code of a `part` is in this process, for arguments of these types; compiled, or loaded, first."""
    part.compile(kinds)
    return address_of(part.overloads[kinds])


def address_of(made: Any) -> int:
    """Where one version of a function is in this process, as another may `call` it: it must return nothing."""
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


@intrinsic
def call(typing: Any, address: types.Type, arguments: types.BaseTuple) -> Any:
    """Call the part at this address, whose arguments must be of the very types that its address was asked for with."""
    kinds = tuple(types.unliteral(kind) for kind in arguments)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.call_conv.get_function_type(types.none, kinds)
        spare = [cgutils.alloca_once(builder, each.pointee) for each in kind.args[:2]]  # its result and its exception
        packer = context.call_conv._get_arg_packer(kinds)
        values = packer.as_arguments(builder, cgutils.unpack_tuple(builder, args[1]))
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*spare, *values])
        return context.get_dummy_value()

    return types.void(types.int64, types.Tuple(kinds)), codegen
