package intent;

import java.io.Serializable;

/**
 * The body of a slot: a sequence of items of one size.
 *
 * @param bytes the room for items
 * @param newItem what an item has where nothing is known of it
 * @param earlier layouts of items that today's begin with, and are completed from a new item; others are refused
 */
public record SlotBody(int bytes, byte[] newItem, EarlierItem... earlier) implements Serializable {
    /**
     * @param layout what the head of a slot with such items says
     * @param bytes the size of an item
     * @param usedBytes how many of them today's items begin with
     */
    public record EarlierItem(int layout, int bytes, int usedBytes) implements Serializable {}

    /** An earlier item as Python makes it. */
    public static EarlierItem earlier(int layout, int bytes, int usedBytes) {
        return new EarlierItem(layout, bytes, usedBytes);
    }
}
