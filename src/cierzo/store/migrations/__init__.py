"""The steps by which the schema came about, oldest first. A step that was released is never changed."""
