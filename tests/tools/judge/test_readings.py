from tools.judge.readings import parse_smi, throttles


def test_a_line_of_nvidia_smi_becomes_a_reading():
    reading = parse_smi("1980, 3201, 41, 312.45, 0x0000000000000004")
    assert (reading.sm_mhz, reading.memory_mhz, reading.celsius) == (1980, 3201, 41)
    assert reading.watts == 312.45
    assert reading.throttled == ("software power cap",)


def test_an_idle_device_is_not_throttled():
    assert throttles(0x01) == ()
    assert throttles(0x60) == ("software thermal slowdown", "hardware thermal slowdown")


def test_a_sensor_that_is_missing_or_an_error_gives_no_reading():
    assert parse_smi("1980, 3201, 41, [N/A], 0x0") is None
    assert parse_smi("No devices were found") is None
