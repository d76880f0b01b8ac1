"""Files of any layout to one table of events: listing, formats, types, item and user tables, which days each file holds."""
