"""A hostile program in each kind of jail: what the runner claims to be in force is in force."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.tools.runner.conftest import MEMORY, SECRET
from tools.judge.zygote import FILE_SIZE_LIMIT
from tools.runner.confine import SCRATCH_BYTES
from tools.runner.jail import PROJECT

ALONE = ("own processes", "own user", "signals fenced")
FILES = ("own folder", "files fenced")


def test_every_kind_claims_no_more_than_it_has_and_the_strong_ones_claim_all(cell):
    if cell.kind == "rlimits":
        assert not cell.in_force & {"own processes", "own folder", "no network"}
        assert "limits" in cell.in_force
        return
    everything = {"own processes", "own folder", "no network", "processes capped", "limits"}
    assert everything <= cell.in_force
    assert ("own user" in cell.in_force) == (os.geteuid() == 0)


def test_a_server_on_this_machine_is_not_reached(cell):
    cell.needs("no network", "no TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = cell.run(f"say(tried(lambda: socket.create_connection(('127.0.0.1', {port}), 2)))")
    assert result in ("ENETUNREACH", "ECONNREFUSED", "EACCES")


def test_an_abstract_socket_outside_is_not_reached(cell):
    cell.needs("no network", "signals fenced")
    name = f"\0kernelwright-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(name)
        server.listen()
        code = f"end = socket.socket(socket.AF_UNIX); say(tried(lambda: end.connect({name!r})))"
        assert cell.run(code) in ("ECONNREFUSED", "EPERM")


def test_two_runners_cannot_meet_at_an_abstract_socket_or_in_shared_memory(cell):
    cell.needs("own folder")
    bind = "end = socket.socket(socket.AF_UNIX); end.bind('\\0meet'); end.listen()\n"
    keep = "say(libc.shmget(4711, 4096, 0o1666))\nopen('/dev/shm/meet', 'w').write('x')"
    code = """
end = socket.socket(socket.AF_UNIX)
say([tried(lambda: end.connect('\\0meet')), called(libc.shmget(4711, 4096, 0)),
     os.path.exists('/dev/shm/meet')])
"""
    with cell.runner() as one, cell.runner() as other:
        assert cell.load(one, bind + keep) >= 0
        assert cell.load(other, code) == ["ECONNREFUSED", "ENOENT", False]


def test_nothing_but_the_scratch_folder_can_be_written(cell, tmp_path):
    cell.needs(*FILES)
    tmp_path.chmod(0o777)
    places = [str(tmp_path / "a"), str(PROJECT / "a"), "/etc/a", "/usr/a", "/tmp/a", "/var/tmp/a",
              "/dev/a", str(Path.home() / "a"), "../kernel.py", "../a", "../../a"]  # fmt: skip
    code = f"say([tried(lambda: open(p, 'w').write('x')) for p in ['own', *{places!r}]])"
    own, *others = cell.run(code)
    assert own == 1
    assert set(others) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}
    assert not any(Path(place).exists() for place in places[:8])


def test_homes_and_temporary_files_of_others_cannot_be_read(cell, tmp_path):
    cell.needs(*FILES)
    (tmp_path / "key").write_text(SECRET)
    with tempfile.NamedTemporaryFile("w") as other:
        code = f"""
places = [{str(tmp_path / "key")!r}, {other.name!r}]
say([tried(lambda: os.listdir({str(Path.home())!r})),
     *[tried(lambda: open(place).read()) for place in places]])
"""
        home, *refused = cell.run(code)
    assert set(refused) <= {"ENOENT", "EACCES"}
    assert home in ("EACCES", "ENOENT") or not {".ssh", ".bashrc", ".cache", ".config"} & set(home)


def test_another_runners_folder_cannot_be_read(cell):
    cell.needs("own folder", "own user")
    with cell.runner() as victim:
        cell.load(victim, f"open('mine', 'w').write({SECRET!r})")
        paths = [
            str(victim.folder / "scratch" / "mine"),
            f"/proc/{victim.pid}/cwd/mine",
            f"/proc/{victim.pid}/root/proc/self/environ",
        ]
        code = f"say([tried(lambda: open(path).read()) for path in {paths!r}])"
        assert set(cell.run(code)) <= {"ENOENT", "EACCES", "EPERM"}


def test_the_environment_and_memory_of_others_cannot_be_read(cell, bystander):
    cell.needs(*ALONE, "files fenced")
    code = f"""
found = []
for pid in filter(str.isdigit, os.listdir('/proc')):
    found.append(tried(lambda: open(f'/proc/{{pid}}/environ').read()))
say([{SECRET!r} in ' '.join(found), called(libc.ptrace(16, {bystander.pid}, 0, 0)),
     called(libc.ptrace(0x4206, {bystander.pid}, 0, 0)),
     called(libc.ptrace(16, os.getppid(), 0, 0)),
     tried(lambda: open('/proc/{bystander.pid}/mem', 'rb').read(1))])
"""
    leaked, *refused = cell.run(code)
    assert not leaked
    assert set(refused) <= {"ESRCH", "EPERM", "ENOENT", "EACCES"}


def test_no_other_process_can_be_signalled(cell, bystander):
    cell.needs(*ALONE)
    with cell.runner() as sibling:
        victims = [-1, bystander.pid, sibling.pid, os.getpid(), *range(2, 4000)]
        code = f"""
for pid in [os.getppid(), *{victims!r}]:
    if pid not in (0, os.getpid()):
        tried(lambda: os.kill(pid, signal.SIGKILL))
say('done')
"""
        assert cell.run(code) == "done"
        assert bystander.poll() is None
        assert not sibling.ended
        assert cell.load(sibling, "say('alive')") == "alive"
    assert cell.run("say('alive')") == "alive"


def test_a_fork_bomb_is_bounded_and_others_still_fork(cell):
    cell.needs("processes capped")
    code = """
born = 0
while True:
    child = tried(os.fork)
    if child == 0:
        time.sleep(1000)
    if isinstance(child, str):
        break
    born += 1
say([born, child])
"""
    with cell.runner() as runner:
        born, how = cell.load(runner, code)
        assert how == "EAGAIN"
        assert 200 < born <= 256 + 4 * os.cpu_count()
        assert subprocess.run(["true"], check=False).returncode == 0
        assert cell.run("say('works')") == "works"
    code = "say(subprocess.run(['true']).returncode)"
    assert cell.run(code) == 0


def test_memory_is_capped_above_what_the_zygote_has(cell):
    half, more = MEMORY // 2, MEMORY + (1 << 20)
    code = f"""
say([len(bytearray({half})), tried(lambda: bytearray({more})),
     tried(lambda: len(torch.empty({more}, dtype=torch.uint8)))])
"""
    assert cell.run(code) == [half, "MemoryError", "RuntimeError"]


def test_its_own_limits_cannot_be_raised(cell):
    code = """
names = ['AS', 'FSIZE', 'CORE', 'NOFILE', 'NPROC', 'MSGQUEUE']
kinds = [getattr(resource, 'RLIMIT_' + name) for name in names if name != 'MSGQUEUE'] + [12]
say([tried(lambda: resource.setrlimit(kind, (-1, -1))) for kind in kinds])
"""
    assert set(cell.run(code)) == {"ValueError"}


def test_a_file_is_capped_and_so_is_the_scratch_folder(cell):
    code = f"""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(path):
    with open(path, 'wb', buffering=0) as file:
        for _ in range({FILE_SIZE_LIMIT} // len(block) + 1):
            if file.write(block) != len(block):
                raise OSError(errno.EFBIG, 'short')
block = bytes(1 << 20)
"""
    assert cell.run(code + "say(tried(lambda: fill('big')))") == "EFBIG"
    cell.needs("own folder")
    count = SCRATCH_BYTES // FILE_SIZE_LIMIT + 1
    code += f"results = [tried(lambda: fill(f'big{{n}}')) for n in range({count})]\n"
    assert cell.run(code + "say(results[-1])") == "ENOSPC"


def test_shared_memory_is_capped_or_refused(cell):
    cell.needs(*FILES)
    code = """
block, written = bytes(1 << 22), 0
try:
    for n in range(16):
        with open(f'/dev/shm/{n}', 'wb', buffering=0) as file:
            for _ in range(32):
                written += file.write(block)
    how = 'no end'
except OSError as error:
    how = told(error.errno)
say([how, written])
"""
    before = set(Path("/dev/shm").iterdir())
    how, written = cell.run(code)
    assert how in ("ENOSPC", "EACCES")
    assert written <= 512 << 20
    assert set(Path("/dev/shm").iterdir()) <= before


def test_no_descriptor_of_the_judge_is_open(cell):
    code = """
own = os.open('/proc/self/fd', os.O_RDONLY)
say({fd: tried(lambda: os.readlink(f'/proc/self/fd/{fd}')) for fd in os.listdir(own)
     if int(fd) != own})
"""
    held = cell.run(code)
    assert {held.pop("0"), held.pop("1"), held.pop("2")} == {"/dev/null", "/memfd:log (deleted)"}
    channel, *others = held.values()
    assert channel.startswith("socket:")
    assert not [path for path in others if path != "ENOENT"]


def test_mounting_chroot_and_new_devices_are_refused(cell):
    code = """
os.mkdir('root')
say([called(libc.mount(b'none', b'root', b'tmpfs', 0, None)),
     called(libc.mount(b'none', b'/', None, 32 | 4096, None)), called(libc.umount2(b'/tmp', 2)),
     tried(lambda: os.chroot('root')), tried(lambda: os.mknod('disk', 0o60666, os.makedev(254, 0))),
     tried(lambda: os.setuid(0)) if os.getuid() else 'EPERM', tried(lambda: os.setgroups([0]))])
"""
    assert set(cell.run(code)) <= {"EPERM", "EINVAL"}


def test_a_user_namespace_of_its_own_opens_nothing(cell):
    cell.needs("own folder")
    code = """
libc.unshare(0x10020000)
say([called(libc.umount2(b'/tmp', 2)), called(libc.mount(b'none', b'/', None, 32 | 4096, None)),
     tried(lambda: open('/etc/a', 'w')), tried(lambda: os.listdir(%r))])
"""
    *refused, home = cell.run(code % str(Path.home()))
    assert set(refused) <= {"EPERM", "EINVAL", "EROFS", "EACCES"}
    assert not {".ssh", ".bashrc", ".cache", ".config"} & set(home)


def test_no_program_gives_it_privileges(cell):
    code = """
fields = dict(line.split(':', 1) for line in open('/proc/self/status'))
say({name: fields[name].strip() for name in ('NoNewPrivs', 'CapEff', 'CapPrm', 'CapBnd', 'CapAmb')})
"""
    status = cell.run(code)
    assert status.pop("NoNewPrivs") == "1"
    # The right to read every file is left only where nothing else would let torch be read.
    allowed = (0, 4) if "own folder" not in cell.in_force else (0,)
    if os.geteuid() != 0 and cell.kind == "rlimits":
        # An ordinary user may not change the bounds, and gains nothing by them.
        status.pop("CapBnd")
    assert {int(value, 16) for value in status.values()} <= set(allowed)


def test_keys_of_the_judges_session_are_not_found_nor_left_for_the_next(cell):
    cell.needs("own user", "own folder")
    code = """
number = {'x86_64': (248, 250), 'aarch64': (217, 219)}[os.uname().machine]
def find(ring):
    return called(libc.syscall(number[1], 10, ring, b'user', b'note', 0))
say([find(-3), find(-4), find(-5)])
for ring in (-3, -4):
    libc.syscall(number[0], b'user', b'note', b'x', 1, ring)
"""
    first, second = cell.run(code), cell.run(code)
    assert first == second
    assert set(first) <= {"ENOKEY", "ENOSYS"}
