"""No statement without its tenant."""

import pytest

from query_api.tenant import Statement, Tenant

ONE = Tenant(projects=("proj_a",), key_hash="h")
TWO = Tenant(projects=("proj_a", "proj_b"), key_hash="h")


def test_a_table_comes_with_its_project():
    """`rows_of` writes the condition, and the statement brings the value, of one project and of several."""
    statement = Statement(tenant=ONE, text=f"SELECT 1 {ONE.rows_of('tool_executions', ['a OR b'])}", values={"v": 1})
    assert statement.text == "SELECT 1 FROM tool_executions WHERE project_id = {tenant:String} AND (a OR b)"
    assert statement.parameters() == {"v": 1, "tenant": "proj_a"}
    statement = Statement(tenant=TWO, text=f"SELECT 1 {TWO.rows_of('usage_windows')}", values={})
    assert statement.text == "SELECT 1 FROM usage_windows WHERE project_id IN {tenant:Array(String)}"
    assert statement.parameters() == {"tenant": ["proj_a", "proj_b"]}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count() FROM tool_executions",
        "SELECT count() FROM tool_executions WHERE project_id = 'proj_b'",
        f"SELECT 1 {ONE.rows_of('usage_windows')} UNION ALL SELECT 2 FROM usage_windows",
        f"SELECT 1 {ONE.rows_of('usage_windows')} OR 1",
        "SELECT * FROM usage_corrections",
        "SELECT * FROM progress",
        "SELECT * FROM dead_letters",
    ],
)
def test_text_that_names_a_table_by_itself_is_refused(text):
    """A statement cannot be made from SQL that reads a table past the tenant."""
    with pytest.raises(AssertionError):
        Statement(tenant=ONE, text=text, values={})


def test_the_tenants_value_cannot_be_replaced():
    """A parameter of the tenant's name is refused."""
    with pytest.raises(AssertionError):
        Statement(tenant=ONE, text="SELECT 1", values={"tenant": "proj_b"})


def test_a_tenant_has_a_project():
    """Without one there would be nothing to bind a query to."""
    with pytest.raises(AssertionError):
        Tenant(projects=(), key_hash="h")
