"""The training form: from a JSON schema to widgets, and from widgets to the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def form_of(scene: Any) -> Callable[..., Any]:
    """`form_of(name=spec, ...)` -> a form in a window, for a schema with these properties."""
    import qt
    from MedCLIPADLib.form import Form

    windows = []

    def build(**properties: dict) -> Any:
        window = qt.QWidget()
        windows.append(window)
        form = Form(window)
        form.window = window
        form.show({"type": "object", "properties": properties})
        window.show()
        return form

    return build


def labels(form: Any) -> list[str]:
    """Return the labels of the form, from top to bottom."""
    import qt

    return [label.text for label in form.window.findChildren(qt.QLabel) if label.text]


LR = {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}], "default": None}
EPOCHS = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9000}, {"type": "null"}], "default": None}
SHOTS = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all", "type": "string"}], "default": 32}


def test_the_title_is_the_label_and_the_name_only_if_it_is_missing(form_of: Any) -> None:
    form = form_of(
        shots={**SHOTS, "title": "Training slices"},
        held_out={"type": "number", "title": "Test share", "default": 0.25},
        image_size={"type": "integer", "default": 0},
    )
    assert labels(form) == ["Training slices", "Test share", "Image size"]


def test_the_description_is_the_tool_tip(form_of: Any) -> None:
    import qt

    form = form_of(
        seed={"type": "integer", "default": 0, "title": "Seed", "description": "Seed of the random numbers."},
        plane={"enum": ["axial", "coronal"], "title": "Plane", "default": "axial"},
    )
    assert form.widget("seed").toolTip == "Seed of the random numbers."
    assert form.widget("plane").toolTip == "Plane"
    assert next(label.toolTip for label in form.window.findChildren(qt.QLabel)) == "Seed of the random numbers."


@pytest.mark.parametrize(
    ("spec", "lowest", "entered"),
    [(EPOCHS, 1, 20), (LR, 0.0001, 0.00025)],
    ids=["integer", "number"],
)
def test_an_optional_number_is_the_methods_default_until_one_is_entered(
    form_of: Any, spec: dict, lowest: float, entered: float
) -> None:
    form = form_of(option=spec)
    widget = form.widget("option")
    assert widget.text == "default" and form.values() == {}
    widget.stepUp()
    assert 0 < widget.value <= lowest and form.values() == {"option": widget.value}
    widget.value = entered
    assert form.values() == {"option": entered}
    widget.value = widget.minimum
    assert widget.text == "default" and form.values() == {}


def test_an_optional_number_may_be_set_back_to_the_methods_default(form_of: Any) -> None:
    form = form_of(epochs={**EPOCHS, "default": 5})
    widget = form.widget("epochs")
    assert widget.value == 5
    widget.value = widget.minimum
    assert widget.text == "default" and form.values() == {}


def test_a_number_typed_over_default_is_taken(form_of: Any) -> None:
    from harness import user

    form = form_of(epochs=EPOCHS)
    user.write(form.widget("epochs"), "45")
    assert form.values() == {"epochs": 45}


def test_an_optional_text_choice_list_or_switch_is_left_out_until_it_is_set(form_of: Any) -> None:
    null = {"type": "null"}
    form = form_of(
        class_name={"anyOf": [{"type": "string"}, null], "default": None},
        precision={"anyOf": [{"enum": ["float32", "bfloat16"]}, null], "default": None},
        prompts={"anyOf": [{"type": "array", "items": {"type": "string"}}, null], "default": None},
        flip={"anyOf": [{"type": "boolean"}, null], "default": None},
        typed={"type": ["integer", "null"], "minimum": 0, "default": None},
    )
    precision, flip = form.widget("precision"), form.widget("flip")
    assert [precision.itemText(row) for row in range(precision.count)] == ["default", "float32", "bfloat16"]
    assert [flip.itemText(row) for row in range(flip.count)] == ["default", "yes", "no"]
    assert form.widget("class_name").placeholderText == "default" and form.widget("typed").text == "default"
    assert form.values() == {}
    form.widget("class_name").text, form.widget("prompts").text = "brain", "a, b"
    precision.currentIndex, flip.currentIndex, form.widget("typed").value = 2, 2, 0
    assert form.values() == {
        "class_name": "brain", "precision": "bfloat16", "prompts": ["a", "b"], "flip": False, "typed": 0
    }  # fmt: skip
    form.widget("class_name").text = "  "
    assert "class_name" not in form.values()


def test_all_is_a_value_of_the_spin_box(form_of: Any) -> None:
    form = form_of(shots=SHOTS)
    widget = form.widget("shots")
    assert widget.text == "32" and form.values() == {}
    widget.value = widget.minimum
    assert widget.text == "all" and form.values() == {"shots": "all"}
    widget.stepUp()
    assert widget.text == "1" and form.values() == {"shots": 1}
    other = form_of(shots={**SHOTS, "default": "all"}).widget("shots")
    assert other.text == "all"


def test_all_is_a_value_of_a_list(form_of: Any) -> None:
    planes = {"type": "array", "items": {"enum": ["axial", "coronal"]}}
    form = form_of(planes={"anyOf": [planes, {"const": "all"}], "default": ["axial"]})
    assert form.widget("planes").text == "axial" and form.values() == {}
    form.widget("planes").text = " all"
    assert form.values() == {"planes": "all"}
    form.widget("planes").text = "axial, coronal"
    assert form.values() == {"planes": ["axial", "coronal"]}


def test_advanced_parameters_are_in_a_collapsed_group(form_of: Any) -> None:
    import ctk
    from harness import user

    assert not form_of(shots=SHOTS).window.findChildren(ctk.ctkCollapsibleGroupBox), "no group without parameters"
    form = form_of(learning_rate={**LR, "advanced": True}, shots=SHOTS)
    (group,) = form.window.findChildren(ctk.ctkCollapsibleGroupBox)
    assert group.title == "Advanced" and group.collapsed
    with pytest.raises(user.OutOfReach):
        user.write(form.widget("learning_rate"), "0.01")
    user.write(form.widget("shots"), "8")
    group.collapsed = False
    user.write(form.widget("learning_rate"), "0.01")
    assert form.values() == {"learning_rate": 0.01, "shots": 8}


def test_enumerations_and_constants_are_choices(form_of: Any) -> None:
    form = form_of(
        plane={"enum": ["axial", "coronal"], "default": "coronal"},
        select={"anyOf": [{"const": "better"}, {"const": "always"}], "default": "better"},
        level={"enum": [0, 1, 2], "default": 1},
        weighted={"type": "boolean", "default": True},
    )
    assert form.widget("plane").currentText == "coronal" and form.widget("level").currentText == "1"
    assert form.values() == {}
    form.widget("plane").currentIndex = 0
    form.widget("select").currentIndex = 1
    form.widget("level").currentIndex = 0
    form.widget("weighted").checked = False
    assert form.values() == {"plane": "axial", "select": "always", "level": 0, "weighted": False}


def test_lists_are_typed_with_commas(form_of: Any) -> None:
    form = form_of(normal={"type": "array", "items": {"type": "string"}, "default": []})
    assert form.widget("normal").text == "" and form.values() == {}
    form.widget("normal").text = "a, b ,"
    assert form.values() == {"normal": ["a", "b"]}


def test_a_nested_object_is_a_json_text(form_of: Any) -> None:
    from MedCLIPADLib.errors import ModuleError

    form = form_of(options={"type": "object", "default": {}, "title": "Options"})
    assert form.values() == {}
    form.widget("options").text = '{"epochs": 3}'
    assert form.values() == {"options": {"epochs": 3}}
    form.widget("options").text = "[1"
    with pytest.raises(ModuleError, match="Options must be a JSON object"):
        form.values()


def test_a_default_of_many_decimals_is_not_rounded(form_of: Any) -> None:
    form = form_of(decay={"type": "number", "default": 0.0000025, "minimum": 0})
    assert form.widget("decay").value == 0.0000025 and form.values() == {}


def test_a_required_property_is_sent_and_references_are_followed(form_of: Any) -> None:
    form = form_of()
    form.show(
        {
            "$defs": {"Plane": {"enum": ["axial", "coronal"], "title": "Plane of the slices"}},
            "properties": {
                "plane": {"$ref": "#/$defs/Plane", "default": "axial"},
                "also": {"allOf": [{"$ref": "#/$defs/Plane"}], "default": "coronal", "title": "Also"},
                "name": {"type": "string"},
            },
            "required": ["name", "plane"],
        }
    )
    assert labels(form) == ["Plane of the slices", "Also", "Name"]
    assert form.values() == {"plane": "axial", "name": ""}


def test_what_was_entered_stays_until_the_schema_changes(form_of: Any) -> None:
    form = form_of(seed={"type": "integer", "default": 0})
    form.widget("seed").value = 5
    form.show({"type": "object", "properties": {"seed": {"type": "integer", "default": 0}}})
    assert form.values() == {"seed": 5}
    form.show({"type": "object", "properties": {"seed": {"type": "integer", "default": 1}}})
    assert form.values() == {} and form.widget("seed").value == 1


def test_a_server_without_a_schema_gives_an_empty_form(form_of: Any) -> None:
    form = form_of()
    form.show({})
    assert form.values() == {} and labels(form) == []
