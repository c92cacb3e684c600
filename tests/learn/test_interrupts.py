"""interrupts：第一次先记下，第二次当场打断，出来时恢复原样。"""

import signal
import threading

import pytest

from sam_lite.learn.interrupts import Interrupts


@pytest.fixture(autouse=True)
def _usual_handlers():
    """测试之外被忽略的信号（后台跑的时候）也当作平常的。"""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_waits_for_a_check(number, code):
    with Interrupts() as stop:
        stop.check()
        assert not stop
        signal.raise_signal(number)
        assert stop and stop.exit_code == code
        with pytest.raises(KeyboardInterrupt):
            stop.check()


def test_the_second_signal_stops_at_once_and_keeps_the_first_code():
    with Interrupts() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == 143


def test_impatient_means_at_once():
    with Interrupts(patient=False) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143


def test_handlers_come_back_and_ignored_signals_stay_ignored():
    """nohup 一类的办法把信号设成忽略，就让它忽略。"""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Interrupts() as stop:
        assert signal.getsignal(signal.SIGINT) == stop._receive
        signal.raise_signal(signal.SIGTERM)
        assert not stop
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_leave_signals_alone():
    seen = []

    def work():
        with Interrupts() as stop:
            seen.append((signal.getsignal(signal.SIGINT), bool(stop), stop.exit_code))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, False, 130)]
