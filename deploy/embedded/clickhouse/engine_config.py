"""The engine's configuration for one small machine."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from deploy.embedded.clickhouse.options import MEBIBYTE, ClickHouseOptions

# Two merges at a time keep up with the inserts of one machine and leave it its cores; the other pools only serve what an
# embedded server does not do (fetches, moves, distributed sends). Schedule pool threads are made at start: few are enough.
# Merges can wait for a core and questions cannot; without the right to set it (CAP_SYS_NICE) the engine leaves it.
_CONFIG = """<clickhouse>
    <max_server_memory_usage>{memory_bytes}</max_server_memory_usage>
    <mark_cache_size>{mark_cache_bytes}</mark_cache_size>
    <index_mark_cache_size>{mark_cache_bytes}</index_mark_cache_size>
    <primary_index_cache_size>{mark_cache_bytes}</primary_index_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_common_pool_size>2</background_common_pool_size>
    <background_fetches_pool_size>1</background_fetches_pool_size>
    <background_move_pool_size>1</background_move_pool_size>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
    <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
    <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
    <os_threads_nice_value_merge_mutate>10</os_threads_nice_value_merge_mutate>
    <tmp_path>{tmp_path}</tmp_path>
    <merge_tree>
        <!-- The defaults ask for 20 free slots, which pools of this size never have. -->
        <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>
</clickhouse>
"""


def write_config(options: ClickHouseOptions, folder: Path) -> Path:
    """Write the configuration into `folder` and return its path; it is made anew at each start."""
    path = folder / "config.xml"
    path.write_text(
        _CONFIG.format(
            memory_bytes=options.effective_memory_bytes,
            mark_cache_bytes=max(16 * MEBIBYTE, options.effective_memory_bytes // 32),
            tmp_path=escape(f"{folder / 'tmp'}/"),
        )
    )
    return path
