"""A secret is in a file, or it is said where it should be."""

from pathlib import Path

import pytest

from agent.credentials import secret
from agent.errors import UserError


def test_it_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\nrotate me in May\n")
    assert secret("mqtt.password_file", None, file) == "hunter2"


@pytest.mark.parametrize("content", ["", "\n"], ids=["nothing", "what the unit puts where nobody wrote one"])
def test_a_file_without_one_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "password"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"^mqtt.password_file: {file} is empty: write the secret into it"):
        secret("mqtt.password_file", None, file)
