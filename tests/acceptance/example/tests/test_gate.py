def test_one_ticket_lets_one_person_in(harness):
    result = harness.race(clients=10)
    assert result.verdict.held
