package intent;

import java.io.Serializable;

/**
 * The body of a slot: a sequence of items of one size.
 *
 * @param bytes the room for items
 * @param newItem what an item has where nothing is known of it
 * @param earlier layouts of slots that are completed from a new head and a new item; state of any other is refused
 */
public record SlotBody(int bytes, byte[] newItem, Earlier... earlier) implements Serializable {
    /**
     * @param layout what the head of such a slot says
     * @param headBytes the size of its head, with which today's begins
     * @param itemBytes the size of an item
     * @param usedBytes how many of them today's items begin with
     */
    public record Earlier(int layout, int headBytes, int itemBytes, int usedBytes) implements Serializable {}

    /** An earlier layout as Python makes it. */
    public static Earlier earlierLayout(int layout, int headBytes, int itemBytes, int usedBytes) {
        return new Earlier(layout, headBytes, itemBytes, usedBytes);
    }
}
